"""The page's scripts in Node: each is the twin of something in Python, or shows what the chip does."""

import random
from pathlib import Path

import node
import pytest
from checkpoints import REPOSITORY
from page_program import PROMPT, reference_story, story_program, told_by_reference, write_data
from programs import small_program

from arch import isa, row
from page.payload import payload
from page.wasm import chip_wasm
from program.sampler import seed_states, temperature_q
from program.tokenizer import Tokenizer
from report import streams, web
from run.programs import open_program

OPEN = """
import fs from "node:fs";
import { readPayload } from "./js/payload.js";
const payload = readPayload(new Uint8Array(fs.readFileSync("program.bin")));
"""


SMALL = {"tiny": {}, "micro": {"n_layers": 2, "vocab_size": 128, "hidden_dim": 64, "n_heads": 4, "n_kv_heads": 2,
                               "head_dim": 8, "seq_len": 64}}
"""Sizes of models for smaller chips."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page")
    write_data(path)
    return path


def thousand_texts() -> list[str]:
    """Sentences of the model's world, and everything else that a visitor may type."""
    dice = random.Random(21)
    words = (REPOSITORY / "README.md").read_text().split()
    odd = ["é", "ß", "日本", "🙂", "👩‍👧", "\t", "\n", "  ", "\x00", "\x7f", "İ", "ﬁ", "a\u0301", "—", "“", "0", "<s>",
           "<0x41>", "�", "\U0001f600", "\ue000"]
    texts = ["", " ", "Once upon a time", "\n\n", "<s>", "</s>"]
    while len(texts) < 1000:
        parts = [dice.choice(words if dice.random() < 0.7 else odd) for _ in range(dice.randrange(1, 12))]
        texts.append(dice.choice([" ", "", "  "]).join(parts))
    return texts


def test_the_tokenizer_is_pythons(folder: Path):
    tokenizer = Tokenizer.from_bytes(story_program().tokenizer)
    source = OPEN + """
    import { Tokenizer } from "./js/tokenizer.js";
    import { utf8Text } from "./js/payload.js";
    export function answer(texts) {
      const tokenizer = new Tokenizer(payload.section("tokenizer"));
      return texts.map((text) => {
        const ids = tokenizer.encode(text), bytes = [];
        ids.slice(1).forEach((id, n) => bytes.push(...tokenizer.piece(ids[n], id)));
        return [ids, utf8Text(bytes)];
      });
    }"""
    texts = thousand_texts()
    for text, (ids, back) in zip(texts, node.run(folder, source, texts), strict=True):
        assert ids == tokenizer.encode(text), text
        assert back == tokenizer.decode(ids), text


def test_broken_utf8_reads_as_in_python(folder: Path):
    dice = random.Random(3)
    cases = [[dice.choice([0x41, 0x80, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0x98, 0x80, 0xED, 0xFF])
              for _ in range(dice.randrange(9))] for _ in range(500)]
    source = 'import { utf8Text } from "./js/payload.js"; export const answer = (all) => all.map(utf8Text);'
    assert node.run(folder, source, cases) == [bytes(case).decode("utf-8", "replace") for case in cases]


def test_sampling_begins_as_in_python(folder: Path):
    temperatures, seeds = [0, 0.1, 0.5, 0.7, 1, 1.3, 2.5, 10], [0, 1, 7, 1 << 40, (1 << 64) - 1]
    source = """
    import { seedStates, temperatureWord } from "./js/sampler.js";
    export const answer = ([temperatures, seeds]) =>
      [temperatures.map(temperatureWord), seeds.map((seed) => Array.from(seedStates(300, BigInt(seed))))];"""
    words, states = node.run(folder, source, [temperatures, list(map(str, seeds))])
    assert words == [temperature_q(each) for each in temperatures]
    assert states == [seed_states(300, seed).tolist() for seed in seeds]


def test_instructions_decode_as_in_python(folder: Path):
    program = story_program()
    source = OPEN + """
    import { Isa } from "./js/isa.js";
    export function answer() {
      const isa = new Isa(payload.header.isa);
      return payload.header.queues.map((queue) => Array.from({ length: queue.words }, (_, n) =>
        isa.decode(payload.section(`words/${queue.name}`).subarray(n * queue.bytes, (n + 1) * queue.bytes))));
    }"""
    for queue, found in zip(row.queues(program.config), node.run(folder, source), strict=True):
        for word, each in zip(program.queues[queue.name], found, strict=True):
            instr = isa.decode(word)
            assert (each.pop("op"), each.pop("delay")) == (instr.op.name, instr.delay)
            assert each.pop("engine") == isa.ENGINES.get(instr.op, "")
            values = {name: getattr(instr, name) for name, field in isa.FIELDS[instr.op].items()
                          if not field.needs or getattr(program.config, field.needs)}
            assert each == {name: getattr(value, "name", value) for name, value in values.items()}


@pytest.mark.parametrize("config", ["tiny", "micro", "ulx3s"])
def test_bursts_are_the_programs_schedule(folder: Path, config: str):
    """In every bucket: those of the first turns are the schedule, and the turns behind repeat them."""
    program = story_program() if config == "ulx3s" else small_program(config, **SMALL[config])
    name = f"{config}.bin"
    (folder / name).write_bytes(web.container(web.schedule_header(program, name), web.schedule_sections(program)))
    source = OPEN.replace("program.bin", name) + """
    import { Isa } from "./js/isa.js";
    import { bursts } from "./js/schedule.js";
    export const answer = () => payload.header.buckets.map((_, n) => bursts(payload, new Isa(payload.header.isa), n)
      .map((b) => [b.label, b.queue, b.segment, b.first, b.last, b.turn, b.pc, b.offset]));"""
    for number, found in enumerate(node.run(folder, source)):
        first = sorted(tuple(b[:5]) for b in found if b[5] == 0)
        assert first == sorted((e.label, e.queue, e.segment, e.first, e.last) for e in program.events(number))
        segments = {s.name: s for s in program.buckets[number].segments}
        assert len(found) == sum(segments[e.segment].turns for e in program.events(number))
        assert {b[5] for b in found if b[2] == "layer"} == set(range(program.model.n_layers))


def test_values_reach_only_units_that_take_them(folder: Path):
    """No value of a compiled program is driven for nothing, and weights run to the matrix unit of their side."""
    program = story_program()
    for number in range(len(program.buckets)):
        for (queue, pc), ways in streams.reaches(program, number).items():
            instr = isa.decode(program.queues[queue][pc])
            for way, position in ways.items():
                assert position != streams.NOWHERE, (queue, pc, way)
                if instr.op is isa.Op.READ and instr.weights:
                    assert position == (0 if "_W" in queue else 6)


WATCH = OPEN + """
import { Machine } from "./js/machine.js";
import { Isa } from "./js/isa.js";
import { bursts, Drivers } from "./js/schedule.js";
import { texts } from "./js/story.js";
const machine = new Machine(fs.readFileSync("chip.wasm"), new Uint8Array(fs.readFileSync("program.bin")));
"""


def test_the_story_is_the_reference_in_the_predicted_cycles(folder: Path):
    program = story_program()
    options = {"text": PROMPT, "temperature": 0.7, "seed": "2", "positions": 24}
    source = WATCH + """
    export function answer(options) {
      machine.begin(options);
      machine.forward(1e9);
      return [texts(machine.story.steps).join(""), machine.story.steps.map((s) => [s.token, s.predicted, s.measured])];
    }"""
    text, steps = node.run(folder, source, options)
    told, tokens = reference_story(24, 0.7, 2)
    assert steps == [[token, program.cycles(n), program.cycles(n)] for n, token in enumerate(tokens)]
    assert text == told


@pytest.mark.nightly
@pytest.mark.parametrize("config", ["wide", "large"])
def test_a_story_on_a_larger_chip(tmp_path: Path, config: str):
    """The deep banks of `large` are filled directly. One cycle back, late in a token, comes from a snapshot near it."""
    program = open_program(REPOSITORY / "models" / "stories263k.bin", config=config)
    (tmp_path / "chip.wasm").write_bytes(chip_wasm(program.config).read_bytes())
    (tmp_path / "program.bin").write_bytes(payload(program, "story"))
    source = """
    import fs from "node:fs";
    import { Machine } from "./js/machine.js";
    const machine = new Machine(fs.readFileSync("chip.wasm"), new Uint8Array(fs.readFileSync("program.bin")));
    export function answer(options) {
      machine.begin(options);
      machine.forward(1e9);
      const steps = machine.story.steps.map((step) => [step.token, step.predicted, step.measured]);
      machine.seek(1, machine.story.predicted(1) - 1);
      const seen = machine.state().probes.join();
      machine.back(1);
      machine.forward(1);
      return [steps, machine.state().probes.join() === seen];
    }"""
    options = {"text": PROMPT, "temperature": 0.7, "seed": "2", "positions": 12}
    steps, same = node.run(tmp_path, source, options)
    _, tokens = told_by_reference(program, PROMPT, 12, 0.7, 2)
    assert steps == [[token, program.cycles(n), program.cycles(n)] for n, token in enumerate(tokens)]
    assert same


def test_registers_hold_what_the_schedule_says(folder: Path):
    """In every cycle of a token: a stream register is driven exactly where a burst's value is, as decoded."""
    source = WATCH + """
    export function answer(options) {
      machine.begin(options);
      const { header } = machine, isa = new Isa(header.isa), list = bursts(machine.payload, isa, 0);
      const drivers = new Drivers(list, isa, header), { groups, planes, positions } = header.config;
      machine.seek(1, 0);
      let seen = 0;
      for (let cycle = 1; cycle < machine.story.predicted(1); cycle++) {
        machine.forward(1);
        const { probes } = machine.state();
        for (const dir of ["E", "W"]) {
          for (let p = 0; p < positions; p++) {
            const [at] = header.probes[`${dir.toLowerCase()}_driven_${p}`];
            const bits = probes[at] | (probes[at + 1] << 8);
            for (let group = 0; group < groups; group++) {
              const driven = Boolean((bits >> (planes * group)) & 15);
              if (driven !== Boolean(drivers.of(dir, group, p, cycle))) return `${dir}${p} ${group} ${cycle}`;
              seen += driven;
            }
          }
        }
      }
      return seen;
    }"""
    assert node.run(folder, source, {"text": PROMPT, "temperature": 0, "seed": 0}) > 10_000


def test_back_and_forth_gives_the_same_chip(folder: Path):
    source = WATCH + """
    function hash(bytes) {
      return bytes.reduce((sum, byte) => (Math.imul(sum, 31) + byte) | 0, 7);
    }
    export function answer(options) {
      machine.begin(options);
      const seen = new Map();
      for (let n = 0; n < 120; n++) {
        machine.forward(211);
        const { position, cycle, probes } = machine.state();
        seen.set(`${position} ${cycle}`, hash(probes));
      }
      const order = [...seen.keys()].map((key, n) => [(n * 7919) % 120, key]).sort((a, b) => a[0] - b[0]);
      const wrong = [];
      for (const [, key] of order) {
        const [position, cycle] = key.split(" ").map(Number);
        machine.seek(position, cycle);
        const found = machine.state(), there = found.position === position && found.cycle === cycle;
        if (!there || hash(found.probes) !== seen.get(key)) wrong.push(key);
      }
      machine.seek(2, 5);
      machine.back(6);
      return [wrong, machine.story.position, machine.story.cycle, machine.story.predicted(1) - 1];
    }"""
    wrong, position, cycle, last = node.run(folder, source, {"text": PROMPT, "temperature": 0, "seed": 0})
    assert not wrong
    assert (position, cycle) == (1, last)


def test_a_story_begins_anew_in_the_middle_of_a_token(folder: Path):
    source = WATCH + """
    export function answer(options) {
      const stories = [];
      for (const cycles of [0, 9000, 12345]) {
        machine.begin(options);
        machine.forward(1e9);
        stories.push(machine.story.steps.map((step) => [step.token, step.measured]));
        machine.begin({ ...options, seed: "9" });
        machine.forward(cycles);
      }
      return stories;
    }"""
    one, *others = node.run(folder, source, {"text": PROMPT, "temperature": 1, "seed": "4", "positions": 8})
    assert others == [one, one]


def test_a_prompt_that_does_not_fit_is_refused_in_one_line(folder: Path):
    source = WATCH + """
    export function answer(options) {
      try {
        machine.begin(options);
      } catch (error) {
        return error.message;
      }
    }"""
    said = node.run(folder, source, {"text": "x" * 900, "temperature": 0, "seed": 0})
    assert "tokens, the chip's context only 256: shorten it" in said
