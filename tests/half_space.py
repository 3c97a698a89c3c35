"""The manifold that is the worked example of CONTRIBUTING.md, as it is written there."""

import re
from pathlib import Path

_TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()
(_CODE,) = [code for code in re.findall(r"```python\n(.*?)```", _TEXT, re.DOTALL) if "HalfSpaceGeometry" in code]
exec(compile(_CODE, "CONTRIBUTING.md", "exec"), globals())
