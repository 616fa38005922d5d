"""The program file: what is written is read back, and anything else is refused in one line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from checkpoints import random_checkpoint, small_config
from programs import TINY, random_tokenizer, small_program

from arch import isa, row
from arch.config import CONFIGS, ChipConfig
from arch.identity import chip_digest
from base.errors import TspError
from compiler.compile import compile_checkpoint
from program import file as program_file
from program import frame
from program.file import from_bytes, is_program, load, save, to_bytes
from program.program import EVENT_COLUMNS
from program.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def program():
    return small_program()


@pytest.fixture(scope="module")
def image(program) -> bytes:
    return to_bytes(program)


def refused(data: bytes, config: ChipConfig | None = None) -> str:
    """The one line with which a file is refused."""
    with pytest.raises(TspError) as caught:
        from_bytes(data, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def compiled(config: ChipConfig, **options):
    return compile_checkpoint(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]),
                              config=config, measure=False, **options)


# ---- written and read ----


def test_what_is_saved_is_loaded(program, tmp_path: Path):
    path = tmp_path / "a.tsp"
    save(program, path)
    again = load(path)
    assert to_bytes(again) == to_bytes(program) == path.read_bytes()
    for name in ("config", "model", "context", "four_bit", "buckets", "starts", "queues", "maps", "symbols", "texts",
                 "tokenizer", "quality"):
        assert getattr(again, name) == getattr(program, name), name
    assert np.array_equal(again.schedule, program.schedule)
    for name in ("image", "arrays"):
        ours, theirs = getattr(program, name), getattr(again, name)
        assert list(ours) and sorted(ours) == sorted(theirs)
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tsp"]


def test_the_first_lines_say_what_it_is(image: bytes):
    first, second, header, _ = image.split(b"\n", 3)
    assert first == b"metronome-program 5"
    assert second.startswith(str(len(image)).encode())
    assert b'"config":"tiny"' in header


def test_the_same_input_gives_the_same_bytes(image: bytes):
    assert to_bytes(compiled(CONFIGS["tiny"])) == image


def test_the_parts_are_usable(program):
    assert program.integer_model().context == program.context
    assert Tokenizer.from_bytes(program.tokenizer).vocab_size == program.model.vocab_size


def test_a_quality_survives(program):
    measured = compile_checkpoint(random_checkpoint(small_config(**TINY)), random_tokenizer(TINY["vocab_size"]),
                                  config=CONFIGS["tiny"])
    assert measured.quality is not None and 0 < measured.quality.kl < 1
    assert from_bytes(to_bytes(measured)).quality == measured.quality


# ---- refused ----


def test_a_file_cut_short_is_refused(image: bytes):
    lengths = {*range(0, 200), *range(200, len(image), len(image) // 97), len(image) - 1}
    for length in sorted(lengths):
        message = refused(image[:length])
        assert "cut short" in message or (not length and "not a Metronome program" in message), (length, message)
    assert f"{len(image)} bytes expected, 5000 found" in refused(image[:5000])


def test_a_file_with_a_tail_is_refused(image: bytes):
    assert "too long" in refused(image + b"\0")


def test_a_flipped_bit_anywhere_is_refused(image: bytes):
    rng = np.random.default_rng(0)
    for at in [*range(300), *rng.integers(300, len(image), 150).tolist(), len(image) - 1]:
        for bit in range(8) if at < 300 else rng.integers(0, 8, 1).tolist():
            altered = bytearray(image)
            altered[at] ^= 1 << bit
            assert refused(bytes(altered)), (at, bit)


def test_another_chip_is_refused_with_both_digests(image: bytes):
    message = refused(image, CONFIGS["ulx3s"])
    assert chip_digest(CONFIGS["tiny"]) in message and chip_digest(CONFIGS["ulx3s"]) in message
    changed = replace(CONFIGS["tiny"], er_depth=8)
    assert chip_digest(changed) in refused(image, changed)
    assert from_bytes(image, replace(CONFIGS["tiny"], debug=True)).config.debug


def test_an_unknown_chip_is_refused():
    own = replace(CONFIGS["tiny"], name="mine")
    data = to_bytes(compiled(own))
    assert "'mine'" in refused(data)
    assert from_bytes(data, own).config == own


def test_another_instruction_set_is_refused(image: bytes, monkeypatch: pytest.MonkeyPatch):
    """The digests are those that a chip or a board would tell."""
    here = chip_digest(CONFIGS["tiny"])
    monkeypatch.setattr(program_file, "isa_digest", lambda: "0" * 16)
    monkeypatch.setattr(program_file, "chip_digest", lambda config: "f" * 16)
    assert f"tiny with another instruction set ({here}, here {'f' * 16})" in refused(image)


def test_another_version_is_refused(image: bytes):
    for other in b"4", b"6":
        assert f"version '{other.decode()}'" in refused(image.replace(b"program 5", b"program " + other, 1))


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n\n", b"metronome\n\n\n", b"\0" * 5000, b"PK\x03\x04" * 100])
def test_what_is_no_program_is_refused(data: bytes):
    assert "not a Metronome program" in refused(data)


def test_a_consistent_frame_around_nonsense_is_refused():
    for body in (b"", b"no newline", b"[]\n", b"{}\n", b'{"config":"tiny"}\n', b"\xff\n"):
        head = program_file.CHIP.first_line + b"\n"
        data = head + frame.second_line(len(head), body) + body
        assert "compile it again" in refused(data)


def test_sections_that_contradict_the_header_are_refused(program, image: bytes):
    lines = image.split(b"\n", 3)
    for old, new in ((b'"schedule","<i4"', b'"schedule","<i8"'), (b'"schedule","<i4"', b'"schedule","|O8"'),
                     (b'"context":40', b'"context":"x"'), (b'"queue/VXM"', b'"queue/XVM"'),
                     (b'["schedule","<i4",[', b'["schedule","<i4",[-'), (b'["schedule","<i4",[', b'[0,"<i4",['),
                     (b'["schedule","<i4",[', b'["schedule","<i4",[9999999999999999999999')):
        body = lines[2].replace(old, new) + b"\n" + lines[3]
        assert body != lines[2] + b"\n" + lines[3]
        head = lines[0] + b"\n"
        assert "contradicts" in refused(head + frame.second_line(len(head), body) + body)


def changed(program, **fields) -> dict:
    """A change of the first bucket."""
    return {"buckets": (replace(program.buckets[0], **fields), *program.buckets[1:])}


def moved(program, name: str, **fields) -> dict:
    """A change of a tensor's place."""
    return {"symbols": program.symbols | {name: replace(program.symbols[name], **fields)}}


def rescheduled(program, column: int, value: int) -> dict:
    """A change of the schedule's first row."""
    rows = program.schedule.copy()
    rows[0, column] = value
    return {"schedule": rows}


LANES = tuple(range(16))
CONTRADICTIONS = {
    "no buckets": (lambda p: {"buckets": ()}, r"1\.\.4 buckets, not 0"),
    "many buckets": (lambda p: {"buckets": p.buckets * 5}, r"1\.\.4 buckets"),
    "limits": (lambda p: {"buckets": p.buckets[::-1]}, "limits of buckets must rise"),
    "no positions": (lambda p: changed(p, limit=0), "limits of buckets must rise"),
    "last limit": (lambda p: {"buckets": p.buckets[:-1], "starts": {n: s[:-1] for n, s in p.starts.items()}},
                   r"last bucket's limit must be in 40 \(the context\)"),
    "a bucket too many": (lambda p: {"context": 20}, "only the last bucket may reach the context of 20"),
    "short period": (lambda p: changed(p, period=10), r"period of bucket 0 must be in 11\.\.4294967295, not 10"),
    "long period": (lambda p: changed(p, period=1 << 32), "period of bucket 0 must be in"),
    "segment": (lambda p: changed(p, segments=(replace(p.buckets[0].segments[0], turns=0),)), "segment begin of"),
    "context": (lambda p: {"context": 41}, r"context must be in 1\.\.40"),
    "no context": (lambda p: {"context": 0}, r"context must be in 1\.\.40"),
    "starts": (lambda p: {"starts": p.starts | {"VXM": (0,)}}, "queue VXM must have a start for each of"),
    "start": (lambda p: {"starts": p.starts | {"VXM": (0, 1 << 12, 0)[: len(p.buckets)]}}, "a start of queue VXM must"),
    "negative start": (lambda p: {"starts": p.starts | {"VXM": (-1, 0, 0)[: len(p.buckets)]}}, "a start of queue VXM"),
    "no starts": (lambda p: {"starts": {}}, "must have starts of queues MEM_E0"),
    "long queue": (lambda p: {"queues": p.queues | {"VXM": p.queues["VXM"] * 9}}, "queue VXM must hold at most 512"),
    "no operation": (lambda p: {"queues": p.queues | {"VXM": (0x74, *p.queues["VXM"][1:])}},
                     "VXM word 0: OPCODE: READ"),
    "no delay": (lambda p: {"queues": p.queues | {"SXM_E": (3, *p.queues["SXM_E"][1:])}}, "SXM_E word 0.*delay"),
    "stray bits": (lambda p: {"queues": p.queues | {"MEM_E0": (1 << 70 | 0x13, *p.queues["MEM_E0"][1:])}},
                   "MEM_E0 word 0: OPCODE: SYNC has stray bits"),
    "map number": (lambda p: {"maps": {16: LANES}}, r"numbers of lane maps must be in 0\.\.15, not 16"),
    "map of other lanes": (lambda p: {"maps": {0: LANES[1:]}}, "map 0 must be a permutation of 16 lanes"),
    "map that is none": (lambda p: {"maps": {0: (0,) * 16}}, "map 0 must be a permutation of 16 lanes"),
    "map not routable": (lambda p: {"maps": {0: (2, 0, 1, *LANES[3:])}}, "that the crossbar can do"),
    "image": (lambda p: {"image": p.image | {"X9": p.image["W0"]}}, "its image has a slice 'X9'"),
    "image size": (lambda p: {"image": p.image | {"W0": np.zeros((300, 4, 16), np.uint8)}}, "at most 256 quads"),
    "slice": (lambda p: moved(p, "token", slice="W7"), "tensor 'token' lies in slice 'W7'"),
    "address": (lambda p: moved(p, "token", addr=256), "tensor 'token' must lie within the 256 quads"),
    "negative address": (lambda p: moved(p, "token", addr=-1), "tensor 'token' must lie within"),
    "stride": (lambda p: moved(p, "token", stride=255), "tensor 'token' must lie within"),
    "missing": (lambda p: {"symbols": {n: s for n, s in p.symbols.items() if n != "noise"}}, "tensor 'noise', which"),
    "few logits": (lambda p: moved(p, "logits", quads=6), "tensor 'logits' must have 7 quads, not 6"),
    "few tokens": (lambda p: moved(p, "tokens", quads=2), "tensor 'tokens' must have 3 quads, not 2"),
    "schedule": (lambda p: {"schedule": p.schedule[:, 1:]}, "its schedule must have 8 columns"),
    "schedule's bucket": (lambda p: rescheduled(p, 0, 9), "its schedule must be of buckets"),
    "schedule's text": (lambda p: rescheduled(p, 3, -1), "its schedule must name texts"),
    "schedule's queue": (lambda p: rescheduled(p, 2, p.texts.index("begin")), "names a queue 'begin'"),
    "schedule's segment": (lambda p: rescheduled(p, 5, p.texts.index("VXM")), "names a segment 'VXM'"),
    "schedule's cycles": (lambda p: rescheduled(p, 7, 1 << 30), "must lie within their bucket's period"),
    "four bits": (lambda p: {"four_bit": ("wz",)}, "no matrix 'wz'"),
    "arrays": (lambda p: {"arrays": {}}, "array sizes is missing"),
    "another model": (lambda p: {"arrays": small_program(vocab_size=90).arrays}, "model's vocab must be 100, not 90"),
}


@pytest.mark.parametrize(("change", "words"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_a_file_that_contradicts_itself_is_refused(program, change, words: str):
    """Its checksum is right."""
    with pytest.raises(TspError, match=words) as caught:
        from_bytes(to_bytes(replace(program, **change(program))))
    assert "\n" not in str(caught.value)


def test_words_that_a_queue_cannot_store_are_refused():
    """A queue of `ulx3s` holds short delays and few distinct words."""
    program, name = small_program("ulx3s"), "MEM_E1"
    for words, why in (([isa.encode(isa.Instr(isa.Op.NOP, 4095))], "takes delays up to"),
                       ([isa.encode(isa.Instr(isa.Op.READ, 1, {"addr": n, "count": n})) for n in range(1, 300)],
                        "distinct values")):
        wrong = replace(program, queues=program.queues | {name: (*words, *program.queues[name][len(words):])})
        with pytest.raises(TspError, match=f"queue {name} of config ulx3s.*{why}"):
            from_bytes(to_bytes(wrong))


def test_files_that_cannot_be_read_or_written(program, tmp_path: Path):
    for path in (tmp_path / "none.tsp", tmp_path):
        with pytest.raises(TspError, match="cannot read"):
            load(path)
    with pytest.raises(TspError, match="cannot write"):
        save(program, tmp_path / "no" / "a.tsp")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_what_was_there(program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.tsp"
    path.write_text("before")
    monkeypatch.setattr(program_file, "to_bytes", lambda program: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(program, path)
    assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1


def test_programs_are_told_from_checkpoints(image: bytes, tmp_path: Path):
    for name, data, answer in (("a.tsp", b"", True), ("b.bin", image, True), ("c.bin", b"x", False)):
        (tmp_path / name).write_bytes(data)
        assert is_program(tmp_path / name) is answer


# ---- what is known beforehand ----


def test_every_position_has_its_cycles(program):
    last = 0
    for position in range(program.context):
        bucket = program.bucket(position)
        assert position in program.positions(bucket)
        assert program.cycles(position) == bucket.period >= last
        last = bucket.period
    assert program.mean_cycles == np.mean([program.cycles(p) for p in range(program.context)])
    for position in (-1, program.context):
        with pytest.raises(TspError, match="position must be"):
            program.cycles(position)


def test_bytes_read_are_the_models_own(program):
    c = program.model
    layer = 2 * c.dim * 32 + 2 * c.dim * 16 + 3 * c.dim * c.hidden_dim
    assert program.bytes_read(0) == c.n_layers * layer + c.vocab_size * c.dim + c.dim + 2 * c.n_layers * 16
    assert program.bytes_read(7) - program.bytes_read(6) == 2 * c.n_layers * 16
    four = small_program(weights="int4")
    assert four.bytes_read(0) == program.bytes_read(0) - c.n_layers * layer / 2


def test_roofline_fraction_is_bytes_over_bandwidth(program):
    assert program.config.macs == 128
    assert program.roofline_fraction(3) == program.bytes_read(3) / 128 / program.cycles(3)
    fractions = [program.bytes_read(p) for p in range(program.context)]
    assert program.roofline_fraction() == pytest.approx(np.mean(fractions) / 128 / program.mean_cycles)
    assert program.tokens_per_second(10, 1000) == 10_000


def test_use_is_within_the_chip(program):
    for use in (program.sram_use(), program.queue_use()):
        assert all(0 < used <= there for used, there in use.values())


def test_events_lie_in_their_segments(program):
    assert program.schedule.shape[1] == len(EVENT_COLUMNS)
    queues = {queue.name for queue in row.queues(program.config)}
    for number, bucket in enumerate(program.buckets):
        events = program.events(number)
        segments = {s.name: s for s in bucket.segments}
        assert [e.first for e in events] == sorted(e.first for e in events)
        for event in events:
            segment = segments[event.segment]
            assert event.queue in queues and isa.Op[event.op]
            assert segment.start <= event.first <= event.last < bucket.period
        macs = sum(e.last - e.first + 1 for e in events if e.op == "MAC" and e.segment == "layer")
        assert macs * 64 * program.model.n_layers == segments["layer"].weight_bytes


# ---- choices of the compiler ----


def test_buckets_are_as_many_as_the_queues_hold():
    config = CONFIGS["tiny"]
    program = compiled(config)
    chunks = [bucket.chunks for bucket in program.buckets]
    assert chunks[-1] == 3 and 1 < len(chunks) <= config.buckets
    assert [bucket.limit for bucket in program.buckets] == [16 * n for n in chunks]
    single = compiled(config, buckets=1)
    assert [bucket.chunks for bucket in single.buckets] == [3]
    deep = compiled(replace(config, name="deep", icu_depth=4096, vxm_icu_depth=4096))
    assert [bucket.chunks for bucket in deep.buckets] == [1, 2, 3]


def test_a_queue_that_is_too_short_is_named():
    short = replace(CONFIGS["tiny"], name="short", vxm_icu_depth=64)
    with pytest.raises(TspError, match=r"queue VXM needs \d+ instructions, config short has 64"):
        compiled(short)
    with pytest.raises(TspError, match=r"buckets must be in 1\.\.3, not 4"):
        compiled(CONFIGS["tiny"], buckets=4)


def test_the_context_is_shortened_to_what_fits():
    long = random_checkpoint(small_config(**TINY | {"seq_len": 512}))
    program = compile_checkpoint(long, random_tokenizer(TINY["vocab_size"]), config=CONFIGS["tiny"], measure=False)
    assert program.context % 16 == 0 and 16 <= program.context < 512
    with pytest.raises(TspError, match="context"):
        compile_checkpoint(long, random_tokenizer(TINY["vocab_size"]), config=CONFIGS["tiny"],
                           context=program.context + 16)


@pytest.mark.parametrize(("config", "sizes", "message"), [
    ("tiny", {"vocab_size": 300}, "accumulator file of MXM_W is too small.*classifier"),
    ("tiny", {"hidden_dim": 100}, "accumulator file of MXM_W is too small.*w13"),
    ("small", {"hidden_dim": 100, "head_dim": 16}, "activation buffer of MXM_[WE] is too small.*w13 product"),
])
def test_a_buffer_that_is_too_small_is_named(config: str, sizes: dict, message: str):
    """Without the check these programs would be legal, and their logits wrong."""
    with pytest.raises(TspError, match=message):
        small_program(config, **sizes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context": 0}, "context must be in 1..40"),
        ({"context": 41}, "context must be in 1..40"),
        ({"weights": "int2"}, "weights must be one of int8, int4"),
        ({"buckets": 0}, "buckets must be in"),
    ],
)
def test_bad_options_are_refused(options: dict, words: str):
    with pytest.raises(TspError, match=words):
        compiled(CONFIGS["tiny"], **options)


@pytest.mark.parametrize(("config", "why"), [("small", "the 8 rows of a step exceed its 4 lanes"),
                                             ("mega", "its matrix units have no INT4 steps")])
def test_int4_is_refused_on_a_chip_without(config: str, why: str):
    with pytest.raises(TspError, match=f"config {config} has no int4 weights, because {why}: use int8"):
        small_program(config, "int4")


def test_a_foreign_tokenizer_and_small_models_are_refused():
    checkpoint = random_checkpoint(small_config(**TINY))
    with pytest.raises(TspError, match="110 tokens, the model 100"):
        compile_checkpoint(checkpoint, random_tokenizer(110), config=CONFIGS["tiny"])
    narrow = random_checkpoint(small_config(**TINY | {"dim": 16}))
    with pytest.raises(TspError, match="dim must be more than 16"):
        compile_checkpoint(narrow, random_tokenizer(TINY["vocab_size"]), config=CONFIGS["tiny"])
