r"""Events on the earth, such as earthquakes, read from a file of latitudes and longitudes, and splits of them."""

import math
import os
import re
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_hyperbolic.geometry import checks

from .graphs import generator_of

__all__ = ["PointSplit", "earth", "split_points"]

#: Names in a comment of a file whose columns are swapped, perhaps with units, such as ``# lon, lat``.
_SWAPPED = re.compile(r"[#\s]*((lon|lng|east)\w*|x)( ?\(.*\))?, *((lat|north)\w*|y)( ?\(.*\))?\s*", re.IGNORECASE)


def earth(path: str | os.PathLike[str]) -> Tensor:
    r"""Reads points :math:`(\cos\varphi \cos\lambda, \cos\varphi \sin\lambda, \sin\varphi)` of the sphere from a csv.

    Each line is a latitude :math:`\varphi` in [-90, 90] and a longitude :math:`\lambda` in [-180, 360], in degrees.
    Comments (``#``), blank lines, and one line of names before the numbers, such as ``lat,long``, are skipped. Names
    that begin with the longitude, or with ``x``, are an error, in a comment too. Rows stay in order, and repeated ones
    stay repeated. Equal places are equal points: longitudes are equal up to whole turns, and at a pole all are,
    so ``len(x.unique(dim=0))`` is the number of distinct places.

    Args:
        path: Path of the file. The package ships none; the papers use events of NOAA NGDC (earthquakes, volcanoes),
            the Dartmouth Flood Observatory and NASA FIRMS (fires).

    Returns:
        Points of ``geoopt.Sphere()``, float64, shape ``(N, 3)``.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``path`` is not a path.
        ValueError: If a line is not two numbers, a latitude or longitude is out of range, the names say that longitude
            comes first, or the file has no places.

    References:
        Emile Mathieu, Maximilian Nickel, *Riemannian Continuous Normalizing Flows*, 2020, arXiv:2006.10605.

    Example:
        The north pole, twice, and a place on the equator:

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "places.csv"
        ...     _ = path.write_text("# made by hand\nlat,long\n90,0\n90,25.5\n0,90\n")
        ...     x = earth(path)
        >>> x.round(decimals=4)
        tensor([[0., 0., 1.],
                [0., 0., 1.],
                [0., 1., 0.]], dtype=torch.float64)
        >>> len(x.unique(dim=0))
        2
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path = {checks.shown(path)}, but must be a string or a pathlib.Path.")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not a file; give the path of a csv file of latitudes and longitudes.")
    places: list[tuple[float, float]] = []
    named = False
    # Undecodable bytes make a line that is refused below, with its number.
    for number, line in enumerate(Path(path).read_text("utf-8-sig", errors="replace").splitlines(), 1):
        where = f"line {number} of {path} is {checks.shown(line)}"
        swapped = ValueError(f"{where}, but latitude must come first; swap the columns.")
        if line.lstrip().startswith("#") or not line.strip():
            if _SWAPPED.fullmatch(line) and not places:
                raise swapped
            continue
        fields = [field.strip("\"' ") for field in line.split(",")]
        try:
            latitude, longitude = map(float, fields)
        except ValueError:
            if named or places or len(fields) != 2 or not all(field[:1].isalpha() for field in fields):
                raise ValueError(
                    f"{where}, not two numbers latitude,longitude in degrees; keep these two columns only."
                ) from None
            if re.match("(lon|lng|east|x$)", fields[0], re.IGNORECASE) or re.match("lat", fields[1], re.IGNORECASE):
                raise swapped from None
            named = True
            continue
        for name, value, low, high in (("latitude", latitude, -90, 90), ("longitude", longitude, -180, 360)):
            if not low <= value <= high:
                raise ValueError(
                    f"{where}, but a {name} must be in [{low}, {high}] degrees; write latitude first, or remove it."
                )
        if longitude > 180:
            longitude = float(Decimal(fields[1]) - 360)  # 359.9 is -0.1, which 359.9 - 360 is not
        places.append((latitude, longitude))
    if not places:
        raise ValueError(f"{path} has no places; it must have lines latitude,longitude in degrees.")
    degrees = torch.tensor(places, dtype=torch.float64)
    # The longitude of a pole does not matter.
    degrees[degrees[:, 1] == -180, 1] = 180
    degrees[degrees[:, 0].abs() == 90, 1] = 0
    phi, lam = degrees.deg2rad().unbind(-1)
    return torch.stack([phi.cos() * lam.cos(), phi.cos() * lam.sin(), phi.sin()], dim=-1)


class PointSplit(NamedTuple):
    """Points to train, validate and test a density on; made by :func:`split_points`.

    Attributes:
        train: Points to learn from.
        val: Points to choose a model by.
        test: Points to score it on.
    """

    train: Tensor
    val: Tensor
    test: Tensor


def split_points(x: Tensor, seed: int, val: float = 0.1, test: float = 0.1, *, distinct: bool = False) -> PointSplit:
    r"""Splits N points at random: :math:`\lfloor v N \rfloor` to validate, :math:`\lfloor t N \rfloor` to test on.

    Where points repeat, a test point may be a training point, and the likelihood rewards spikes without bound. With
    ``distinct=True`` the D distinct points are split in this way instead, and each brings all its copies: no point is
    in two parts. Parts are in random order.

    Args:
        x: Points, shape ``(N, *event)``, such as those of :func:`earth`.
        seed: Seed of the generator.
        val: Fraction to validate on.
        test: Fraction to test on.
        distinct: Whether to keep equal points together.

    Returns:
        A :class:`PointSplit`.

    Raises:
        TypeError: If an argument is of a wrong type.
        ValueError: If a point is not finite, a fraction is negative, or they leave no points to train on.

    Example:
        Forty places, each twice:

        >>> x = torch.randn(40, 3).repeat(2, 1)
        >>> [len(part) for part in split_points(x, seed=0)]
        [64, 8, 8]
        >>> split = split_points(x, seed=0, distinct=True)
        >>> [len(part.unique(dim=0)) for part in split]
        [32, 4, 4]
    """
    checks.check_floating("x", x)
    generator = generator_of(seed)
    if not isinstance(distinct, bool):
        raise TypeError(f"distinct = {checks.shown(distinct)}, but must be True or False.")
    if x.dim() < 2 or not len(x):
        raise ValueError(f"x has shape {tuple(x.shape)}, but must be (N, *event) with N >= 1.")
    wrong = ~x.isfinite().flatten(1).all(1)
    if bool(wrong.any()):  # NaN is not equal to its copies
        raise ValueError(
            f"x holds NaN or infinity in {int(wrong.sum())} of {len(x)} points, but must be finite; drop them, "
            f"x[x.isfinite().flatten(1).all(1)]."
        )
    copies = x.unique(dim=0, return_inverse=True)[1] if distinct else torch.arange(len(x), device=x.device)
    total = int(copies.max()) + 1
    sizes = []
    for name, share in (("val", val), ("test", test)):
        share = checks.check_number(name, share, "it is a fraction of the points")
        if share < 0:
            raise ValueError(f"{name} = {share}, but must be at least 0; it is a fraction of the points.")
        # Rounded before floor: 0.29 * 100 is 28.999999999999996.
        sizes.append(math.floor(round(share * total, 6)))
    if sum(sizes) >= total:
        raise ValueError(
            f"val = {val} and test = {test} hold out {sum(sizes)} of {total} points, but at least one must be left to "
            f"train on; use smaller fractions."
        )
    rank = torch.randperm(total, generator=generator).to(x.device)[copies]  # of each point among the shuffled ones
    order = torch.randperm(len(x), generator=generator).to(x.device)
    rank, x = rank[order], x[order]
    held_out = rank < sum(sizes)
    return PointSplit(x[~held_out], x[rank < sizes[0]], x[held_out & (rank >= sizes[0])])
