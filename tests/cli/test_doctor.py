"""`sphinx-nvs doctor` and `sphinx-nvs completion`, as a user types them."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from sphinx_nvs.cli import diagnosis
from sphinx_nvs.cli.diagnosis import Finding, diagnose, pair_works
from sphinx_nvs.cli.options.doctor_options import Doctor
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.models.registry.cards import CARDS
from sphinx_nvs.models.registry.resolution import HOME, RECORD, weights_path
from sphinx_nvs.presets import SHIPPED, load_preset
from sphinx_nvs.profiling.calibration import cached_path

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home in which nothing was fetched or measured."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def without_pair(monkeypatch):
    """Leaves out the one check that takes seconds."""
    monkeypatch.setitem(diagnosis.CHECKS, "pair", lambda: iter(()))


def _named(name: str, findings: list[Finding]) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_working_installation_exits_with_0(run):
    outcome = run("doctor", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.json["works"]
    findings = {finding["name"]: finding for finding in outcome.json["findings"]}
    assert {finding["group"] for finding in findings.values()} == set(diagnosis.CHECKS)
    assert {"python", "required", "torch", "processor", "encoder", "render", "speed"} <= set(findings)
    assert {f"preset {name}" for name in SHIPPED} <= set(findings)
    assert findings["speed"]["fix"] == "sphinx-nvs plan demo --deadline-s 5"


def test_every_missing_thing_has_a_fix_in_the_table(run, without_pair, monkeypatch):
    monkeypatch.setattr("sphinx_nvs.cli.doctor.pair_works", lambda findings: True)
    missing = [finding for finding in diagnose() if finding.state == "missing" and finding.name != "GPU"]
    assert missing
    outcome = run("doctor")
    assert outcome.code == 0
    fixes = outcome.out.partition("\nTo fix:\n")[2]
    assert all(finding.fix and f"    {finding.fix}\n" in fixes for finding in missing)


def test_a_pair_that_does_not_load_exits_with_1(run, without_pair, monkeypatch):
    def damaged():
        raise SphinxError("nano.safetensors: sha256 is 00…")

    monkeypatch.setitem(diagnosis.CHECKS, "pair", diagnosis.check_pair)
    monkeypatch.setattr("sphinx_nvs.presets.load_nano", damaged)
    outcome = run("doctor", "--json")
    assert outcome.code == 1
    assert not outcome.json["works"]
    sentence = "sphinx-nvs: the default pair does not work: render: nano.safetensors: sha256 is 00…; fix it: "
    assert outcome.err.startswith(sentence)


def test_a_damaged_package_is_a_finding_and_not_a_traceback(without_pair, monkeypatch):
    def check():
        yield Finding(group="pair", name="before", state="ok", found="")
        raise ImportError("no libtorch.so", name="torch.nn")

    monkeypatch.setitem(diagnosis.CHECKS, "pair", check)
    findings = [finding for finding in diagnose() if finding.group == "pair"]
    assert [finding.name for finding in findings] == ["before", "pair"]
    assert (findings[1].state, findings[1].found) == ("broken", "ImportError: no libtorch.so")
    assert findings[1].fix == f"{sys.executable} -m pip install --force-reinstall torch"
    assert not pair_works(findings)


def test_a_bug_is_to_be_reported(without_pair, monkeypatch):
    monkeypatch.setitem(diagnosis.CHECKS, "pair", lambda: iter([1 // 0]))
    assert "SPHINX_DEBUG=1" in _named("pair", diagnose()).fix


@pytest.fixture
def versions(monkeypatch):
    """Versions of installed packages, to be changed; None for a package that is not there."""
    changed: dict[str, str | None] = {}
    true_version = metadata.version

    def version(name: str) -> str:
        found = changed.get(name, "") or (None if name in changed else true_version(name))
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return changed


def test_an_extra_without_its_packages_is_missing(versions):
    versions["fastapi"] = None
    finding = _named("extra serve", list(diagnosis.check_packages()))
    assert (finding.state, finding.found) == ("missing", "missing: fastapi>=0.115")
    assert finding.fix == f"{sys.executable} -m pip install 'sphinx-nvs[serve]'"


def test_contributors_extras_are_not_reported():
    assert "extra dev" not in [finding.name for finding in diagnosis.check_packages()]


def test_a_required_package_that_is_too_old_is_broken(versions):
    versions["safetensors"] = "0.1.0"
    finding = _named("required", list(diagnosis.check_packages()))
    assert (finding.state, finding.found) == ("broken", "missing: safetensors>=0.4.3 (0.1.0 is installed)")
    assert finding.fix == f"{sys.executable} -m pip install 'safetensors>=0.4.3'"


def test_two_required_packages_are_installed_by_one_command(versions):
    versions |= {"safetensors": None, "rich": None}
    finding = _named("required", list(diagnosis.check_packages()))
    assert finding.found == "missing: rich>=13.7, safetensors>=0.4.3"
    assert finding.fix == f"{sys.executable} -m pip install sphinx-nvs"


def test_a_package_that_is_not_installed_says_so(monkeypatch):
    def distribution(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    (finding,) = diagnosis.check_packages()
    assert (finding.state, finding.fix) == ("missing", f"{sys.executable} -m pip install --editable {ROOT}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "model name\t: Xeon\nflags\t\t: fpu avx2 avx512f avx512_bf16 amx_tile\n",
            "Xeon, AVX2, AVX-512, AVX-512 bfloat16, AMX",
        ),
        ("model name\t: Old\nflags\t\t: fpu sse\n", "Old"),
    ],
)
def test_features_of_the_processor(tmp_path, monkeypatch, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(diagnosis, "CPUINFO", tmp_path / "cpuinfo")
    assert _named("processor", list(diagnosis.check_devices())).found == expected


def test_a_system_without_cpuinfo_names_the_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(diagnosis, "CPUINFO", tmp_path / "none")
    assert _named("processor", list(diagnosis.check_devices())).found


def test_missing_weights_come_with_the_command_that_gets_them():
    finding = _named("preset seva-planesweep", list(diagnosis.check_weights()))
    assert finding.state == "missing"
    assert finding.fix == "sphinx-nvs models pull seva-1.1 sd21-vae clip-vit-h14 --accept-licence"
    metrics = _named("metrics", list(diagnosis.check_weights()))
    assert metrics.fix == f"{sys.executable} -m sphinx_nvs.evaluation.weights"


def test_a_damaged_record_is_broken():
    record = weights_path(CARDS["seva-1.1"]).with_name(RECORD)
    record.parent.mkdir(parents=True)
    record.write_text("{")
    finding = _named("preset seva-planesweep", list(diagnosis.check_weights()))
    assert (finding.state, finding.fix) == ("broken", "sphinx-nvs models verify")
    assert "models pull seva-1.1" in finding.found


def test_a_file_in_place_of_a_folder(home):
    home.write_text("")
    finding = _named("models", list(diagnosis.check_folders()))
    assert (finding.state, finding.fix) == ("missing", f"rm {home}")


def test_a_folder_that_may_not_be_written_to(home, monkeypatch):
    monkeypatch.setattr(diagnosis.os, "access", lambda path, mode: path != home.parent)
    finding = _named("models", list(diagnosis.check_folders()))
    assert (finding.state, finding.fix) == ("missing", f"chmod u+wx {home.parent}")


def test_a_full_disk(monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=10**8)
    monkeypatch.setattr(diagnosis.shutil, "disk_usage", lambda path: usage)
    finding = _named("this folder", list(diagnosis.check_folders()))
    assert (finding.state, finding.fix) == ("missing", "free disk space")


def test_a_build_without_the_usual_encoder(monkeypatch):
    monkeypatch.setattr("av.codecs_available", {"mpeg4"})
    (finding,) = diagnosis.check_video()
    assert finding.state == "missing"
    assert finding.fix == f"{sys.executable} -m pip install --force-reinstall av --only-binary=:all:"


def test_a_measured_machine_is_known():
    path = cached_path(load_preset())
    path.parent.mkdir(parents=True)
    path.touch()
    finding = _named("speed", list(diagnosis.check_pair()))
    assert (finding.state, finding.fix) == ("ok", None)
    assert str(path) in finding.found


def test_doctor_needs_no_torch_to_start():
    program = "import sys; import sphinx_nvs.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert Doctor().json is False


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_that_the_shell_parses(run, shell, tmp_path):
    outcome = run("completion", shell)
    assert (outcome.code, outcome.err) == (0, "")
    assert "sphinx-nvs" in outcome.out
    assert "--deadline-s" in outcome.out
    if shutil.which(shell) is not None:
        script = tmp_path / "completion"
        script.write_text(outcome.out)
        assert subprocess.run([shell, "-n", script], capture_output=True, check=False).stderr == b""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [("sphinx-nvs ren", "render"), ("sphinx-nvs render --dead", "--deadline-s"), ("sphinx-nvs models ver", "verify")],
)
def test_bash_completes_commands_and_options(run, tmp_path, words, expected):
    script = tmp_path / "completion"
    script.write_text(run("completion", "bash").out)
    program = f"""
        source {script}
        COMP_WORDS=({words}) COMP_LINE="{words}" COMP_POINT={len(words)} COMP_CWORD={len(words.split()) - 1}
        function=$(complete -p sphinx-nvs | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert expected in done.stdout.split(), done.stderr


def test_an_unknown_shell_is_refused(run):
    assert run("completion", "tcsh").code == 2
