"""All rules in force, of every kind, as they were loaded together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ringfence import alert_exceptions
from ringfence.alert_exceptions import AlertException
from ringfence.sigma import ruleset
from ringfence.sigma.rules import Refusal
from ringfence.yara import rules as yara_rules
from ringfence.yara.rules import MODULES, Variable

BUNDLED = Path("bundled")
"""In place of a path, the rules that come with this package."""
_PACKAGE = Path(__file__).parent


def located(path: Path, kind: str, base: Path = Path()) -> Path:
    """A path under a folder, or that of the bundled rules of a kind: sigma or yara."""
    if path != BUNDLED:
        return base / path
    installed = _PACKAGE / "_data" / "rules"
    return (installed if installed.is_dir() else _PACKAGE.parent / "rules") / kind


@dataclass(frozen=True, slots=True)
class Rules:
    """Sigma and YARA rules, and the exceptions of alerts."""

    sigma: ruleset.RuleSet = ruleset.EMPTY
    yara: yara_rules.RuleSet = field(default_factory=lambda: yara_rules.RuleSet((), (), ""))
    exceptions: tuple[AlertException, ...] = ()

    @property
    def count(self) -> int:
        """Rules in force."""
        return self.sigma.count + len(self.yara.rules)

    @property
    def refusals(self) -> Sequence[Refusal]:
        """What is not in force, and why."""
        return [*self.sigma.refusals, *self.yara.refusals]


class RuleFiles(BaseModel):
    """Where the detection rules are, and what is left open in them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sigma: list[Path] = Field(default=[], description="Sigma files, or folders of them; `bundled` for the bundled rules.")
    placeholders: dict[str, list[str]] = Field(default={}, description="Values of %NAME% in Sigma rules.")
    yara: list[Path] = Field(default=[], description="YARA files, or folders of them; `bundled` for the bundled rules.")
    variables: dict[str, Variable] = Field(
        default={}, description="External variables of YARA rules: true or false, a number or text; the type counts."
    )
    modules: list[str] = Field(default=sorted(MODULES), description="Modules that YARA rules may import.")
    exceptions: Path | None = Field(default=None, description="File of exceptions: detections that make no alert.")

    def load(self, base: Path = Path()) -> Rules:
        """The rules of the files, whose paths are under a folder; what is refused is in the sets. Raises ConfigError for a faulty
        file of exceptions.
        """
        sigma = ruleset.load([located(path, "sigma", base) for path in self.sigma], self.placeholders)
        exceptions = () if self.exceptions is None else alert_exceptions.load(base / self.exceptions)
        return Rules(sigma, self.load_yara(base), exceptions)

    def load_yara(self, base: Path = Path()) -> yara_rules.RuleSet:
        """Those of YARA alone."""
        return yara_rules.load([located(path, "yara", base) for path in self.yara], self.variables, self.modules)

    def missing(self, base: Path = Path()) -> Sequence[tuple[str, int, Path]]:
        """Paths that are not there, with their kind and place."""
        named: Mapping[str, Sequence[Path]] = {"sigma": self.sigma, "yara": self.yara}
        return [
            (kind, number, path)
            for kind, paths in named.items()
            for number, path in enumerate(paths)
            if not located(path, kind, base).exists()
        ]


def files_at(
    paths: Sequence[Path], exceptions: Path | None = None, placeholders: Mapping[str, list[str]] | None = None
) -> RuleFiles:
    """Rules of both kinds: a file by its suffix, a folder for both."""
    yara_files = [path for path in paths if path.suffix in (".yar", ".yara")]
    others = [path for path in paths if path not in yara_files]
    folders = [path for path in others if path == BUNDLED or path.is_dir()]
    return RuleFiles(sigma=others, yara=[*yara_files, *folders], exceptions=exceptions, placeholders=dict(placeholders or {}))
