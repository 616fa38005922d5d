"""The program of a rack and its file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_racks import CHIP, PAIR, alone, twins

from arch.config import ChipConfig
from arch.rack import RACKS, RackConfig
from base.errors import TspError
from program import file as program_file
from program.file import any_from_bytes, from_bytes, is_program, load, load_any, save, to_bytes
from program.rack import COMMON, RackProgram
from program.weights import SOURCES


@pytest.fixture(scope="module")
def image() -> bytes:
    return to_bytes(twins())


def refused(data: bytes, config: ChipConfig | RackConfig = PAIR) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(TspError) as caught:
        any_from_bytes(data, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_saved_is_loaded(image: bytes, tmp_path: Path):
    path = tmp_path / "a.tsp"
    save(twins(), path)
    again = load_any(path, PAIR)
    assert isinstance(again, RackProgram) and is_program(path)
    assert to_bytes(again) == path.read_bytes() == image
    assert again.rack == PAIR and again.context == alone().context
    for name in COMMON:
        assert all(getattr(chip, name) is getattr(again.chips[0], name) for chip in again.chips), name


def test_what_belongs_to_the_model_stands_in_the_file_once(image: bytes):
    common = alone().tokenizer, *(alone().arrays[name].tobytes() for name in ("rope_cos", "emb_scale"))
    assert all(image.count(data) == 1 for data in common)
    assert len(image) < 2 * len(to_bytes(alone()))


def test_a_program_is_mapped_not_read(tmp_path: Path):
    save(twins(), tmp_path / "a.tsp")
    again = load_any(tmp_path / "a.tsp", PAIR)
    assert isinstance(again, RackProgram)
    assert not any(data.flags.owndata or data.flags.writeable for chip in again.chips for data in chip.image.values())


def test_a_named_rack_is_found_by_the_files_own_words(tmp_path: Path):
    """And a rack that is described in the file only, without a known name."""
    pair = RACKS["pair"]
    header = {"config": "mine", "rack": pair.as_json(), "digest": pair.digest(), "isa": program_file.isa_digest()}
    assert program_file._rack(header, None) == replace(pair, name="mine")


def test_the_integer_model_is_put_together(image: bytes):
    whole, joined = alone().integer_model(), twins().integer_model()
    for name in ("wq", "wk", "wv", "wo", "w1", "w2", "w3", "classifier", "embedding", "mq"):
        assert np.array_equal(getattr(whole, name), getattr(joined, name)), name


def halved() -> RackProgram:
    """Each chip says that it holds one half of the rows of every matrix, and of the logits."""
    chips = []
    for n in range(2):
        channels = {name: np.where(data % 2 == n, data, -1) if name.split("/")[0] in SOURCES and "inputs" not in name
                    else data for name, data in alone().channels.items()}
        logits = np.where(np.arange(100) % 2 == n, np.arange(100), -1).astype(np.int32)
        chips.append(replace(alone(), channels=channels | {"logits": logits}))
    return RackProgram(rack=PAIR, chips=tuple(chips))


def test_parts_of_the_weights_are_put_together():
    again = any_from_bytes(to_bytes(halved()), PAIR)
    whole, joined = alone().integer_model(), again.integer_model()
    for name in ("wq", "wo", "w2", "classifier", "embedding"):
        assert np.array_equal(getattr(whole, name), getattr(joined, name)), name


def test_layers_may_be_divided():
    """Of a model of two layers, each chip holds one."""
    chips = []
    for n in range(2):
        own = [layer for layer in range(alone().model.n_layers) if layer % 2 == n]
        stored = {name: replace(m, layers=1, groups={side: [[replace(p, addr=p.addr + own[0] * p.stride) for p in parts]
                                                            for parts in groups] for side, groups in m.groups.items()})
                  if name not in ("classifier", "embedding") else m for name, m in alone().stored.items()}
        chips.append(replace(alone(), stored=stored,
                             channels=alone().channels | {"layers": np.array(own, np.int32)}))
    joined = any_from_bytes(to_bytes(RackProgram(rack=PAIR, chips=tuple(chips))), PAIR).integer_model()
    for name in ("wq", "wo", "w2", "classifier"):
        assert np.array_equal(getattr(alone().integer_model(), name), getattr(joined, name)), name


def without(program: RackProgram, name: str) -> RackProgram:
    """No chip holds a matrix."""
    return replace(program, chips=tuple(replace(chip, stored={key: m for key, m in chip.stored.items() if key != name})
                                        for chip in program.chips))


def second(**fields) -> RackProgram:
    """Chip 1 has other fields."""
    return RackProgram(rack=PAIR, chips=(alone(), replace(alone(), **fields)))


def test_contradictions_are_refused():
    slower = tuple(replace(bucket, period=bucket.period + 4) for bucket in alone().buckets)
    one = halved().chips[0]
    for program, words in (
        (without(twins(), "wo"), "a part of matrix wo is on no chip"),
        (RackProgram(rack=PAIR, chips=(one, one)), "the logit of token 1 must be on a chip"),
        (second(buckets=slower), "limits and periods of buckets must be the same on chip 1"),
        (second(channels=alone().channels | {"layers": np.array([0, 9], np.int32)}), "channels layers"),
        (second(channels=alone().channels | {"layers": np.array([0, 0], np.int32)}), "different numbers"),
        (second(starts={}), "on chip 1, it must have starts of queues"),
    ):
        assert words in refused(to_bytes(program)), words


def test_every_flipped_bit_and_every_cut_is_noticed(image: bytes):
    rng = np.random.default_rng(5)
    for at in rng.integers(0, len(image), 60):
        damaged = bytearray(image)
        damaged[at] ^= 1 << int(rng.integers(8))
        refused(bytes(damaged))
    for end in (0, 5, 20, 40, 150, len(image) // 2, len(image) - 1):
        refused(image[:end])
    assert "too long" in refused(image + b"\0")


def test_another_machine_is_refused(image: bytes, tmp_path: Path):
    path = tmp_path / "a.tsp"
    path.write_bytes(image)
    with pytest.raises(TspError, match="is for rack twins, not for one chip"):
        load(path)
    assert "not for pair" in refused(image, RACKS["pair"])
    assert "is for rack twins, not for one chip tiny_linked" in refused(image, CHIP)
    assert "is for one chip, config tiny_linked, not for rack twins" in refused(to_bytes(alone()))


def test_another_version_is_refused(image: bytes):
    assert "version '1'" in refused(image.replace(b"rack 2", b"rack 1", 1))
    assert "not a Metronome program" in refused(image.replace(b"metronome-rack", b"metronome-bank", 1))


def test_a_rack_predicts_as_its_chips(image: bytes):
    assert twins().mean_cycles == alone().mean_cycles and twins().cycles(17) == alone().cycles(17)
    assert twins().macs == 2 * alone().macs
    assert twins().roofline_fraction() == pytest.approx(alone().roofline_fraction() / 2)
    assert from_bytes(to_bytes(alone()), CHIP).macs == CHIP.macs
