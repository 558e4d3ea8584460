"""The workflows of the documentation call verbs and options that exist."""

import re
from pathlib import Path

import pytest

from stemstore.cli.main import VERBS

WORKFLOWS = Path(__file__).resolve().parents[2] / "docs" / "workflows"
NAMES = [module.__name__.rpartition(".")[2] for module in VERBS]


@pytest.mark.parametrize("workflow", ["snakemake/Snakefile", "nextflow/main.nf"])
def test_commands_of_workflows_exist(call, workflow):
    """Each command names a verb, and each of its options is one of that verb."""
    text = (WORKFLOWS / workflow).read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^\s*\"?stemstore (\w+) (.*)$", text, re.MULTILINE)
    verbs = {verb for verb, _ in commands}
    assert verbs >= {"plan", "partition", "finalise", "virtual", "validate", "crate"}
    assert verbs <= set(NAMES)
    for verb, rest in commands:
        help_text = call(verb, "--help").stdout
        assert all(option in help_text for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", rest)), (verb, rest)
