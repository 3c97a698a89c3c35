# %% [markdown]
# # The same VAE on several processes, with Lightning
#
# This does what `scale_out.py` does by hand, with the same loss and sampler (Lightning adds its own sampler to a loader
# without one). Lightning starts the processes, wraps the module in DDP and calls `set_epoch`. Run it:
#
#     python tutorials/scale_out_lightning.py                                # one process
#     python tutorials/scale_out_lightning.py --processes 2                  # two; gloo
#     python tutorials/scale_out_lightning.py --processes 2 --device cuda    # two GPUs; nccl
#     python tutorials/scale_out_lightning.py --precision bf16-mixed         # networks in bfloat16, geometry not

# %%
import argparse

import lightning
import pyro
import scale_out  # the tutorial in this folder
import torch


# %%
class Training(lightning.LightningModule):
    def __init__(self, elbo, data, args):
        super().__init__()
        self.elbo, self.data, self.args = elbo, data, args

    def on_train_start(self):
        pyro.set_rng_seed(self.args.seed + self.global_rank)

    def train_dataloader(self):
        return scale_out.share_of(
            self.data, self.args.batch_size, self.args.seed, self.global_rank, self.trainer.world_size
        )

    def configure_optimizers(self):
        return torch.optim.Adam(self.elbo.parameters())

    def training_step(self, x, _):
        loss = self.elbo(x)
        self.log("elbo", -loss.detach() / len(self.data), prog_bar=True, on_step=False, on_epoch=True, sync_dist=True)
        return loss


def run(data, args):
    vae, elbo = scale_out.make_elbo(data, args.seed)
    trainer = lightning.Trainer(
        accelerator=args.device,
        devices=args.processes,
        strategy="ddp" if args.processes > 1 else "auto",
        precision=args.precision,
        max_epochs=args.epochs,
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(Training(elbo, data, args))
    return vae, trainer.global_rank, trainer.world_size


def parser():
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--precision", help="precision of the networks, for Lightning's Trainer")
    return parser


if __name__ == "__main__":
    scale_out.main(run, parser())
