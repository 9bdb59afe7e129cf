"""The documentation names settings, metrics, tests, files and verbs: all of them have to exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

import app.main
import app.worker  # noqa: F401  (importing them declares every metric)
from app.settings import Settings
from deploy.local.options import Options

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
NAMESPACES = "http|postgres|redis|cache|rate_limit|circuit_breaker|deadlines|idempotency|audit|admission|api_key|secret"
METRIC = re.compile(rf"\b(?:{NAMESPACES})_[a-z_]+\b")
METRIC_ENDINGS = ("_total", "_seconds", "_bytes", "_connections", "_in_use", "_open", "_eligible", "_commands")
VARIABLE = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=[^`]*)?`")
# Read by gunicorn's configuration, nginx' template or Prometheus' client.
OTHER_VARIABLES = {"FORWARDED_ALLOW_IPS", "PROMETHEUS_MULTIPROC_DIR", "SERVER_NAMES", "STATE_DIR", "SECRETS_DIR"}
OTHER_VARIABLES |= {"SECRET_KEY_FILE"}
OTHER_VARIABLES |= {"PAGERDUTY_KEY_FILE", "ALERT_EMAIL", "SMTP_SMARTHOST", "TRACES_URL"}  # of Alertmanager and Grafana
# Written in capitals in the code of a page.
CONSTANTS = {"PUBLIC_DOCUMENTS", "OWN_FIELDS", "FILL_1000_ROWS"}
LINK = re.compile(r"(?<!!)\[[^\]]+\]\(([^)#]+)(?:#([^)]+))?\)")
MODULE = re.compile(r'^```python\n(""".*?)^```$', re.MULTILINE | re.DOTALL)
TEST_FILE = re.compile(r"`(?:tests/)?((?:unit|integration|system|faults)/[\w/]+\.py)`")
TEST_NAME = re.compile(r"`(test_\w+)`")
CODE_FILE = re.compile(r"`((?:app|deploy|docs|migrations|nginx|tests|bench)/[\w./*-]+)`")
VERB = re.compile(r"\bmake ([a-z-]+)")

# The table of patterns: name, page, where, switch, metric, test.
ROW = re.compile(r"^\| \[([^\]]+)\]\(docs/patterns/[\w-]+\.md\) \| (.+) \| (.+) \| (.+) \| (.+) \|$", re.MULTILINE)
ROWS = ROW.findall((ROOT / "README.md").read_text())
QUOTED = re.compile(r"`([^`]+)`")
NO_METRIC_OF_OURS = {"none", "what it watches has its own", "shows those of all rooms", "all of them"}

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def undefined_names(module: str) -> str:
    command = (sys.executable, "-m", "ruff", "check", "--quiet", "--isolated", "--select", "F", "-")
    return subprocess.run(command, input=module, capture_output=True, text=True, timeout=30, check=False).stdout


def metric_names() -> set[str]:
    return {f"{family.name}_total" if family.type == "counter" else family.name for family in REGISTRY.collect()}


def names_of_tests() -> set[str]:
    modules = (ROOT / "tests").rglob("test_*.py")
    return {name for module in modules for name in re.findall(r"def (test_\w+)", module.read_text())}


@every_page
def test_settings_exist(page: Path) -> None:
    known = {name.upper() for name in (*Settings.model_fields, *Options.__dataclass_fields__)}
    named = set(VARIABLE.findall(page.read_text()))
    assert named <= known | OTHER_VARIABLES | CONSTANTS


@every_page
def test_metrics_exist(page: Path) -> None:
    named = {name for name in METRIC.findall(page.read_text()) if name.endswith(METRIC_ENDINGS)}
    settings = {*Settings.model_fields}
    assert named <= metric_names() | settings


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(page.read_text()) if not target.startswith("http")]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_worked_example_is_whole() -> None:
    modules = MODULE.findall((ROOT / "docs" / "extending.md").read_text())
    assert len(modules) == 6
    assert [found for module in modules if (found := undefined_names(module))] == []


def test_control_a_forgotten_import_is_found() -> None:
    assert "F821" in undefined_names("partial(print)")


@every_page
def test_tests_exist(page: Path) -> None:
    text = page.read_text()
    assert [path for path in TEST_FILE.findall(text) if not (ROOT / "tests" / path).exists()] == []
    assert set(TEST_NAME.findall(text)) <= names_of_tests()


@every_page
def test_files_exist(page: Path) -> None:
    named = [path for path in CODE_FILE.findall(page.read_text()) if "rooms" not in path]
    assert [path for path in named if not list(ROOT.glob(path.rstrip("/")))] == []


def test_each_pattern_has_a_row() -> None:
    assert len(ROWS) == len(list((ROOT / "docs" / "patterns").glob("*.md")))


@pytest.mark.parametrize(("name", "where", "switch", "metric", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_what_a_row_names_exists(name: str, where: str, switch: str, metric: str, test: str) -> None:
    assert [place for place in QUOTED.findall(where) if not is_there(place)] == []
    assert set(re.findall(r"[A-Z][A-Z_]+", switch)) <= switches(), name
    if metric not in NO_METRIC_OF_OURS and "nginx's log" not in metric:
        assert metric.strip("`").partition("`")[0].partition("{")[0] in metric_names()
    assert [path for path in QUOTED.findall(test) if path != "image" and not (ROOT / "tests" / path).exists()] == []


def test_control_what_is_made_up_is_not_there() -> None:
    assert not is_there("app/platform/magic/")
    assert "NO_SUCH_SWITCH" not in switches()
    assert "magic_total" not in metric_names()


def is_there(place: str) -> bool:
    """A path, from the root or from the platform, or a verb of the Makefile."""
    if place.startswith("make "):
        return f"\n{place.removeprefix('make ')}:" in (ROOT / "Makefile").read_text()
    return any(list(base.glob(place.rstrip("/"))) for base in (ROOT, ROOT / "app" / "platform"))


def switches() -> set[str]:
    """The settings, and what the native stack and nginx are told."""
    fields = (*Settings.model_fields, *Options.__dataclass_fields__)
    return {name.upper() for name in fields} | OTHER_VARIABLES | {"WEB_CONCURRENCY"}


@every_page
def test_verbs_exist(page: Path) -> None:
    verbs = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"`make[^`]*`|^make .*$", page.read_text(), re.MULTILINE)
    assert {verb for line in named for verb in VERB.findall(line)} <= verbs


def test_what_production_refuses_is_told() -> None:
    weak = Settings(
        _env_file=None,
        secret_key="short",
        cors_origins="*",
        log_level="debug",
        rate_limit_scale=2,
        rate_limit_enabled=False,
        idempotency_enabled=False,
        revocation_enabled=False,
        audit_enabled=False,
    )
    security = (ROOT / "SECURITY.md").read_text()
    assert [name for weakness in weak.weaknesses() if f"`{(name := weakness.split()[0])}`" not in security] == []


def test_every_pattern_is_in_the_readme_and_in_the_index() -> None:
    patterns = {f"patterns/{page.name}" for page in (ROOT / "docs" / "patterns").glob("*.md")}
    for index in (ROOT / "README.md", ROOT / "docs" / "README.md"):
        assert patterns <= set(re.findall(r"patterns/[\w-]+\.md", index.read_text()))
