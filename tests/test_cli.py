"""The `tsp` command: what it prints, and that everything it refuses is one line and exit code 2."""

import errno
import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import REPOSITORY, random_checkpoint, small_config, write_hf, write_llama2c
from programs import TINY, small_program, write_letters

from arch import isa
from arch.config import CONFIGS
from arch.identity import chip_digest
from cli.main import DISTRIBUTION, app
from program.file import save, to_bytes

SHIPPED = REPOSITORY / "models" / "stories263k.bin"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METRONOME_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good checkpoint, tokenizer and program, and with bad ones."""
    folder = tmp_path_factory.mktemp("files")
    checkpoint = random_checkpoint(small_config(**TINY))
    write_llama2c(folder / "model.bin", checkpoint)
    write_letters(folder / "tokenizer.bin", TINY["vocab_size"])
    write_letters(folder / "foreign.bin", 110)
    save(small_program(), folder / "good.tsp")
    good, model = (folder / "good.tsp").read_bytes(), (folder / "model.bin").read_bytes()
    (folder / "short.tsp").write_bytes(good[:10_000])
    (folder / "altered.tsp").write_bytes(good[:-1] + bytes([good[-1] ^ 4]))
    (folder / "empty.tsp").write_bytes(b"")
    (folder / "short.bin").write_bytes(model[:10_000])
    (folder / "empty.bin").write_bytes(b"")
    (folder / "noise.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "text.txt").write_text("once upon a time there was a little cat. she liked to play.\n" * 3)
    (folder / "other.txt").write_text("zzz qqq xxx! jjj, vvv kkk." * 9)
    (folder / "few.txt").write_text("once")
    (folder / "digits.txt").write_text("one 2 three")
    (folder / "latin1.txt").write_bytes(b"caf\xe9 au lait" * 9)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "link.bin").symlink_to("model.bin")
    words = small_program().queues
    wrong = replace(small_program(), queues=words | {"VXM": (isa.Op.READ.value | 1 << 4, *words["VXM"][1:])})
    (folder / "foreign_op.tsp").write_bytes(to_bytes(wrong))
    (folder / "alone").mkdir()
    write_llama2c(folder / "alone" / "model.bin", checkpoint)
    write_llama2c(folder / "big.bin", random_checkpoint(small_config(**TINY | {"n_layers": 40})))
    write_hf(folder / "gelu", checkpoint)
    config = json.loads((folder / "gelu" / "config.json").read_text())
    (folder / "gelu" / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    return folder


BAD = [
    (["run", "none.bin"], "no such program or checkpoint"),
    (["run", "none.tsp"], "no such program or checkpoint"),
    (["run", "folder"], "config.json"),
    (["run", "short.tsp"], "cut short"),
    (["run", "empty.tsp"], "not a Metronome program"),
    (["run", "altered.tsp"], "checksum"),
    (["run", "good.tsp", "--config", "ulx3s"], chip_digest(CONFIGS["ulx3s"])),
    (["run", "good.tsp", "--context", "16"], "--context is for checkpoints"),
    (["run", "good.tsp", "--config", "huge"],
     "config must be one of tiny, micro, small, ulx3s, wide, mega, large, sram28, sram220, not 'huge'"),
    (["run", "good.tsp", "--device", "fpga9"], "device must be one of"),
    (["run", "good.tsp", "--prompt", "abc def " * 40], "context"),
    (["run", "good.tsp", "--tokens", "0"], "tokens must be at least 1"),
    (["run", "good.tsp", "--tokens", "many"], "--tokens"),
    (["run", "good.tsp", "--temperature", "-1"], "temperature must be in 0..10"),
    (["run", "good.tsp", "--temperature", "nan"], "temperature must be in 0..10"),
    (["run", "good.tsp", "--seed", "-3"], "seed must be in"),
    (["run", "good.tsp", "--clock", "0"], "clock must be"),
    (["run", "good.tsp", "--clock", "nan"], "clock must be"),
    (["run", "good.tsp", "--device", "model", "--vcd", "a.vcd"], "only the RTL has waveforms"),
    (["run", "good.tsp", "--device", "model", "--fst", "a.fst"], "only the RTL has waveforms"),
    (["run", "good.tsp", "--vcd", "a.vcd", "--fst", "a.fst"], "give --vcd or --fst, not both"),
    (["run", "good.tsp", "--colour"], "--colour"),
    (["run"], "argument"),
    (["walk"], "walk"),
    (["run", "short.bin", "--config", "tiny"], "truncated"),
    (["run", "empty.bin", "--config", "tiny"], "this is an empty file: download it again"),
    (["run", "noise.bin", "--config", "tiny"], "llama2.c"),
    (["run", "model.bin", "--config", "tiny", "--weights", "int3"], "weights must be one of int8, int4"),
    (["run", "model.bin", "--config", "tiny", "--tokenizer", "foreign.bin"], "foreign.bin"),
    (["run", "model.bin", "--config", "tiny", "--tokenizer", "none"], "cannot read the tokenizer"),
    (["run", "big.bin", "--config", "tiny"], "config tiny"),
    (["compile", "model.bin"], "output"),
    (["compile", "none.bin", "-o", "out.tsp"], "no such checkpoint"),
    (["compile", "alone/model.bin", "-o", "out.tsp"], "--tokenizer"),
    (["compile", "model.bin", "--config", "tiny", "-o", "none/out.tsp"], "cannot write"),
    (["compile", "model.bin", "--config", "tiny", "-o", "folder"], "cannot write"),
    (["compile", "model.bin", "--config", "tiny", "--context", "41", "-o", "out.tsp"], "context must be in 1..40"),
    (["compile", "model.bin", "--config", "tiny", "--context", "x", "-o", "out.tsp"], "--context"),
    (["compile", "big.bin", "--config", "tiny", "-o", "out.tsp"], "config tiny"),
    (["compile", "gelu", "--config", "tiny", "-o", "out.tsp"], "gelu"),
    (["compile", "model.bin", "--config", "tiny", "--text", "none.txt", "-o", "out.tsp"],
     "none.txt: cannot read the text"),
    (["compile", "model.bin", "--config", "tiny", "--text", "folder", "-o", "out.tsp"], "folder: cannot read the text"),
    (["compile", "model.bin", "--config", "tiny", "--text", "empty.bin", "-o", "out.tsp"],
     "empty.bin: the text must have at least 16 tokens to calibrate on, not 0: give a longer one"),
    (["compile", "model.bin", "--config", "tiny", "--text", "few.txt", "-o", "out.tsp"], "16 tokens"),
    (["compile", "model.bin", "--config", "tiny", "--text", "digits.txt", "-o", "out.tsp"],
     "digits.txt: the tokenizer has no token for '2'"),
    (["compile", "model.bin", "--config", "tiny", "--text", "latin1.txt", "-o", "out.tsp"],
     "latin1.txt: the text must be UTF-8, but byte 3 is not: convert it"),
    (["run", "model.bin", "--config", "tiny", "--text", "latin1.txt"], "latin1.txt: the text must be UTF-8"),
    (["run", "good.tsp", "--text", "text.txt"], "--text is for checkpoints only"),
    (["compile", "good.tsp", "-o", "out.tsp"], "good.tsp is a program, not a checkpoint"),
    (["compile", "model.bin", "-o", "model.bin"], "model.bin: cannot write: the command reads this very file"),
    (["compile", "model.bin", "-o", "tokenizer.bin"], "the command reads this very file"),
    (["compile", "model.bin", "-o", "link.bin"], "the command reads this very file"),
    (["compile", "model.bin", "-o", ""], "the name of an output is empty"),
    (["compile", "model.bin", "-o", "fifo"], "it is a device or a pipe"),
    (["compile", "model.bin", "-o", os.devnull], "it is a device or a pipe"),
    (["run", "good.tsp", "--vcd", "good.tsp"], "the command reads this very file"),
    (["run", "good.tsp", "--fst", "fifo"], "it is a device or a pipe"),
    (["run", "good.tsp", "--vcd", "none/a.vcd"], "there is no folder"),
    (["report", "good.tsp", "--html", "good.tsp"], "the command reads this very file"),
    (["report", "good.tsp", "--html", "a", "--trace", "./a"], "two outputs have this name"),
    (["report", "good.tsp", "--html", "a", "--svg", "folder"], "it is a folder"),
    (["run", "good.tsp", "--device", "rfc2217://x"], "a host and a port in 1..65535"),
    (["run", "good.tsp", "--device", "socket://localhost:70000"], "a host and a port in 1..65535"),
    (["run", "foreign_op.tsp", "--device", "model"], "VXM word 0: OPCODE: READ is not an operation of VXM"),
    (["fit", "good.tsp"], "run it with `tsp run good.tsp`"),
    (["bench", "good.tsp"], "good.tsp is a program, not a checkpoint"),
    (["fit", "folder"], "this folder has no config.json; give"),
    (["fit", "none.bin"], "no such checkpoint"),
    (["fit", "model.bin", "--config", "huge"], "config must be one of"),
    (["fit", "model.bin", "--context", "1000"], "context must be in 1..40"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(a)[:60] for a, _ in BAD])
def test_what_is_refused_is_one_line(
    arguments: list[str], words: str, files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(files)
    before = sorted(files.rglob("*"))
    assert app(arguments) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("tsp: "), lines
    assert words in lines[0]
    assert sorted(files.rglob("*")) == before


def tsp(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess:
    """The command as a process of its own."""
    return subprocess.run([sys.executable, "-m", "cli.main", *arguments], cwd=cwd, capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONPATH": str(REPOSITORY), **env})


def test_a_process_refuses_in_one_line(files: Path):
    done = tsp("run", "altered.tsp", cwd=files)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("tsp: altered.tsp: ") and done.stderr.count("\n") == 1


def test_help_is_printed(capfd: pytest.CaptureFixture[str]):
    for arguments in ([], ["--help"], ["run", "--help"]):
        assert app(arguments) == 0
    assert "--temperature" in capfd.readouterr().out


DEFAULTS = {"config": "ulx3s", "context": "the checkpoint's, or what fits", "tokens": "up to the context",
            "weights": "int8", "scales": "measured", "tokenizer": "next to the checkpoint", "bucket": "the last",
            "device": "rtl", "temperature": "0.0", "seed": "0", "clock": "50.0"}
OTHER = {("fit", "config"): "all", ("run", "clock"): "the board's, elsewhere 50"}


@pytest.mark.parametrize(("command", "options"), [
    ("run", "device tokens temperature seed clock config context weights scales tokenizer"),
    ("compile", "tokenizer config context weights scales clock"), ("fit", "config context weights clock"),
    ("report", "bucket")])
def test_help_says_every_default(command: str, options: str, capfd: pytest.CaptureFixture[str]):
    assert app([command, "--help"]) == 0
    text = " ".join(capfd.readouterr().out.split())
    for option in options.split():
        default = OTHER.get((command, option), DEFAULTS[option])
        assert re.search(rf"--{option}(?:(?! --).)*\[default: {re.escape(default)}\]", text), (option, text)
    assert command != "run" or "0..10; 0 is greedy" in text


def test_the_version_is_that_of_the_package(capfd: pytest.CaptureFixture[str]):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION
    assert app(["--version"]) == 0
    assert capfd.readouterr().out in (f"tsp {project['version']}\n",
                                      f"tsp of an unknown version: {DISTRIBUTION} is not installed\n")


def test_a_full_disk_of_the_cache_is_a_line(files: Path, capfd: pytest.CaptureFixture[str],
                                            monkeypatch: pytest.MonkeyPatch):
    def full(program: object) -> bytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.chdir(files)
    monkeypatch.setattr("program.file.to_bytes", full)
    assert app(["run", "model.bin", "--config", "tiny", "--context", "13", "--device", "reference"]) == 1
    assert "make room on its disk, and on that of the cache ($METRONOME_CACHE)" in capfd.readouterr().err



@pytest.mark.parametrize("arguments", [["report"], ["run", "--device", "reference", "--tokens", "2"]],
                         ids=lambda arguments: arguments[0])
def test_output_without_room_is_one_line(arguments: list[str], files: Path):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "cli.main", arguments[0], "good.tsp", *arguments[1:]], cwd=files,
                              stdout=full, stderr=subprocess.PIPE, text=True, timeout=120,
                              env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    assert done.returncode == 1
    assert done.stderr.startswith("tsp: cannot write the output: no space left") and done.stderr.count("\n") == 1


def test_an_illegal_program_on_the_model_is_one_line(files: Path, capfd: pytest.CaptureFixture[str]):
    """Its words are those of the chip, but two of them at once are too many."""
    program, name = small_program(), "MEM_E0"
    words = [isa.decode(word) for word in program.queues[name]]
    at = next(n for n, word in enumerate(words) if word.op is isa.Op.READ and word.count > 1)
    again = isa.encode(replace(words[at], delay=1)), *program.queues[name][at + 1 :]
    wrong = replace(program, queues=program.queues | {name: (*program.queues[name][:at], *again)})
    (files / "busy.tsp").write_bytes(to_bytes(wrong))
    assert app(["run", str(files / "busy.tsp"), "--device", "model"]) == 2
    error = capfd.readouterr().err
    assert re.match(r"tsp: cycle \d+: \w+: \w+: ", error) and error.count("\n") == 1, error


def test_names_with_brackets_are_printed_as_they_are(files: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    model, out = tmp_path / "a[" / "b] [red]:dog:.bin", tmp_path / "a[" / "d] [bold]:dog:.tsp"
    model.parent.mkdir()
    model.write_bytes((files / "model.bin").read_bytes())
    assert app(["fit", str(model), "--config", "tiny"]) == 0
    assert app(["compile", str(model), "--tokenizer", str(files / "tokenizer.bin"), "--config", "tiny",
                "-o", str(out)]) == 0
    text = capfd.readouterr().out
    assert f"{model}: " in text and f"{out}: config tiny" in text
    symbols = small_program().symbols
    renamed = replace(small_program(), symbols=symbols | {"x[/y]": symbols["token"]})
    save(renamed, out)
    assert app(["report", str(out)]) == 0
    assert "x[/y]" in capfd.readouterr().out


# ---- run ----


def told(capfd: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert app(["run", *arguments, "--json"]) == 0
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("device", ["reference", "model"])
def test_a_story_as_json(device: str, files: Path, capfd: pytest.CaptureFixture[str]):
    program = small_program()
    options = "--prompt", "abc", "--tokens", "3", "--clock", "50"
    story = told(capfd, str(files / "good.tsp"), "--device", device, *options)
    count = len(story["tokens"])
    assert count == len(story["prompt_tokens"]) - 1 + 3
    assert story["prompt_tokens"][1:] == story["tokens"][:-3]
    assert story["predicted_cycles"] == [program.cycles(p) for p in range(count)]
    assert story["measured_cycles"] == (story["predicted_cycles"] if device == "model" else [None] * count)
    assert story["text"].startswith("abc")
    assert story["clock_mhz"] == 50
    assert story["tokens_per_second"] == pytest.approx(50e6 * count / sum(story["predicted_cycles"]))
    assert 0 < story["roofline_fraction"] < 1
    assert (story["temperature"], story["seed"]) == (0, 0)
    assert all(len(digest) == 64 for digest in story["logits_digest"])


def test_devices_tell_the_same_sampled_story(files: Path, capfd: pytest.CaptureFixture[str]):
    options = str(files / "good.tsp"), "--tokens", "4", "--temperature", "1.5", "--seed", "7"
    first, second = (told(capfd, *options, "--device", device) for device in ("reference", "model"))
    for key in ("tokens", "text", "logits_digest", "predicted_cycles"):
        assert first[key] == second[key]
    assert (first["temperature"], first["seed"]) == (1.5, 7)
    other = told(capfd, *options[:-1], "8", "--device", "reference")
    assert other["tokens"] != first["tokens"]


def test_the_prediction_comes_first_and_the_sum_last(files: Path, capfd: pytest.CaptureFixture[str]):
    assert app(["run", str(files / "good.tsp"), "--device", "model", "--tokens", "3"]) == 0
    cycles = 3 * small_program().cycles(0)
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("predicted cycles a token on tiny: ")
    assert f"3 tokens in {cycles:,} cycles" in lines[1]
    assert f"measured {cycles:,} cycles == predicted {cycles:,}" in lines[-1]
    assert "at 50 MHz" in lines[-1] and "roofline" in lines[-1]


def test_a_checkpoint_is_compiled_once(files: Path, capfd: pytest.CaptureFixture[str]):
    arguments = ["run", str(files / "model.bin"), "--config", "tiny", "--device", "reference", "--tokens", "2"]
    outputs = []
    for _ in range(2):
        assert app(arguments) == 0
        note, _, story = capfd.readouterr().out.partition("\n")
        outputs.append((note, story.split("(reference")[0]))
    assert "compiling" in outputs[0][0] and "from the cache" in outputs[1][0]
    assert outputs[0][1] == outputs[1][1]


def test_a_cycle_too_many_is_an_error(
    files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    from sim.device.chip_device import ChipDevice
    from sim.device.protocol import TokenResult

    run = ChipDevice.run
    monkeypatch.setattr(ChipDevice, "run", lambda self, n: [
        TokenResult(r.token, (r.cycles or 0) + (self.counters.tokens == 3)) for r in run(self, n)])
    assert app(["run", str(files / "good.tsp"), "--device", "model", "--json"]) == 1
    cycles = small_program().cycles(2)
    assert capfd.readouterr().err == f"tsp: token 2 took {cycles + 1} cycles, {cycles} were predicted\n"


def test_a_chips_error_is_an_error(files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    from arch.host_map import Trap
    from sim.device.chip_device import ChipDevice

    monkeypatch.setattr(ChipDevice, "errors", {Trap.NOT_PARKED})
    assert app(["run", str(files / "good.tsp"), "--device", "model"]) == 1
    assert "NOT_PARKED" in capfd.readouterr().err


# ---- compile and fit ----


def test_compiling_prints_what_is_known(files: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    out = tmp_path / "out.tsp"
    assert app(["compile", str(files / "model.bin"), "--config", "tiny", "-o", str(out), "--clock", "40"]) == 0
    text = capfd.readouterr().out
    program = small_program()
    for bucket in program.buckets:
        assert f"{bucket.period:,}" in text and f"{40e6 / bucket.period:,.0f}" in text
    assert "tokens/s at 40 MHz" in text and "KL" in text and "top-1" in text
    for name in ("VXM", "MEM_W0", "W0", "E1"):
        assert name in text
    assert told(capfd, str(out), "--device", "reference", "--tokens", "2")["config"] == "tiny"


def test_compiling_is_deterministic_across_processes(files: Path, tmp_path: Path):
    images = []
    for seed in ("1", "2"):
        done = tsp("compile", str(files / "model.bin"), "--config", "tiny", "-o", "a.tsp", cwd=tmp_path,
                   PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        images.append((tmp_path / "a.tsp").read_bytes())
    assert images[0] == images[1]


def test_scales_come_from_a_text(files: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    model, text = [str(files / "model.bin"), "--config", "tiny"], ["--text", str(files / "text.txt")]
    programs = []
    for options in ([], text, text, ["--text", str(files / "other.txt")]):
        assert app(["compile", *model, "-o", str(tmp_path / "out.tsp"), *options, "--accept-quality"]) == 0
        programs.append((tmp_path / "out.tsp").read_bytes())
    assert programs[1] == programs[2] and len({*programs}) == 3
    assert "text by the float model" in capfd.readouterr().out
    (tmp_path / "out.tsp").write_bytes(programs[1])
    options = ["--tokens", "4", "--temperature", "1", "--device"]
    first, second, third = (told(capfd, *arguments) for arguments in (
        [str(tmp_path / "out.tsp"), *options, "reference"],
        [*model, *text, *options, "model"],
        [*model, *options, "reference"]))  # the cache knows that this one has no text
    assert first["tokens"] == second["tokens"] and first["logits_digest"] == second["logits_digest"]
    assert third["logits_digest"] != first["logits_digest"]


def test_fit_names_the_limit(files: Path, capfd: pytest.CaptureFixture[str]):
    assert app(["fit", str(files / "big.bin")]) == 0
    text = capfd.readouterr().out
    assert "tiny" in text and "does not fit" in text and "limited by" in text and "ulx3s" in text
    assert "the weight matrices take" in text and "KiB of SRAM: use a larger config" in text


def test_fit_tells_cycles_if_asked(files: Path, capfd: pytest.CaptureFixture[str]):
    fit = ["fit", str(files / "model.bin"), "--config", "tiny"]
    assert app(fit) == 0
    assert "cycles" not in capfd.readouterr().out
    assert app([*fit, "--cycles"]) == 0
    text = capfd.readouterr().out
    assert "does not fit" not in text and "cycles hold for static scales" in text
    assert app([*fit, "--cycles", "--scales", "some"]) == 2
    assert "scales must be one of static, dynamic, robust, not 'some'" in capfd.readouterr().err
    shown = int(re.findall(r"\.\.([\d,]+) ", text)[0].replace(",", ""))
    assert shown == small_program(scales="static").cycles(39)


def test_the_shipped_model_fits_the_default_chip(capfd: pytest.CaptureFixture[str]):
    assert app(["fit", str(SHIPPED), "--config", "ulx3s"]) == 0
    assert "limited" not in capfd.readouterr().out
