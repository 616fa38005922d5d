// The chip with a story in it, that goes forward, back, and to any cycle of any token that has run or may.

import { Chip } from "./chip.js";
import { readPayload } from "./payload.js";
import { Snapshots } from "./snapshots.js";
import { Story } from "./story.js";
import { openTokenizer } from "./tokenizer.js";

const FRESH = -1; // the snapshot of a chip that is loaded, and runs nothing
const EVERY = 4; // tokens between snapshots of a story that runs at full speed
const FAR = 2048; // cycles that going back should not run again ..
const NEAR = 256; // .. and those before a cycle that somebody looks at

export class Machine {
  constructor(wasm, bytes) {
    this.payload = readPayload(bytes);
    this.header = this.payload.header;
    this.tokenizer = openTokenizer(this.payload.section("tokenizer"));
    this.chip = new Chip(new WebAssembly.Module(wasm), this.header);
    this.chip.load(this.payload);
    this.snapshots = new Snapshots(this.chip.memory);
    this.snapshots.take(FRESH, null);
    this.onStep = () => {};
  }

  // Starts a story; the chip stands in the cycle of its first start pulse.
  begin({ text, temperature, seed, positions }) {
    const prompt = this.tokenizer.encode(text);
    if (prompt.length > this.header.context) {
      throw new Error(`the prompt has ${prompt.length} tokens, the chip's context only ${this.header.context}: shorten it`);
    }
    this.snapshots.restore(this.snapshots.before(FRESH)); // whatever ran before
    this.snapshots.forget(FRESH);
    this.story = new Story(this.chip, this.tokenizer, { prompt, temperature, seed: BigInt(seed), positions });
    this.story.begin();
    this.#snapshot();
    return this.state();
  }

  // Where the chip stands, with its probes.
  state() {
    const { story } = this;
    return {
      position: story.position, cycle: story.cycle, period: story.ended ? 0 : story.predicted(story.position),
      ended: story.ended, probes: this.chip.probes(),
    };
  }

  // Passes cycles, over the ends of tokens; stops at the end of the story.
  forward(cycles) {
    const { story } = this;
    while (cycles > 0 && !story.ended) {
      const left = story.predicted(story.position) - story.cycle;
      const step = story.advance(Math.min(cycles, left));
      cycles -= Math.min(cycles, left);
      if (step) {
        this.onStep(step);
        if (!story.ended) {
          story.begin();
          if (story.position % EVERY === 0) this.#snapshot();
        }
      }
    }
  }

  // To a cycle of a token, forward or back.
  seek(position, cycle) {
    const { story } = this;
    const wanted = keyOf(position, cycle), now = keyOf(story.position, story.cycle);
    const snapshot = this.snapshots.before(wanted);
    if (wanted < now || snapshot.key > now) story.restore(this.snapshots.restore(snapshot));
    while (!story.ended && story.position < position) this.forward(story.predicted(story.position) - story.cycle);
    if (!story.ended && cycle > 0) {
      if (keyOf(story.position, 0) > (this.snapshots.before(wanted)?.key ?? -1)) this.#atStart();
      if (cycle - story.cycle > FAR) {
        this.forward(cycle - NEAR - story.cycle);
        this.#snapshot();
      }
      this.forward(cycle - story.cycle);
    }
  }

  back(cycles) {
    let { position } = this.story;
    let cycle = this.story.ended ? 0 : this.story.cycle;
    cycle -= cycles;
    while (cycle < 0 && position > 0) cycle += this.story.predicted(--position);
    this.seek(position, Math.max(cycle, 0));
  }

  // A snapshot at the start of a token that somebody looks at, so that going back in it is quick.
  #atStart() {
    if (this.story.inToken && this.story.cycle === 0) this.#snapshot();
  }

  #snapshot() {
    this.snapshots.take(keyOf(this.story.position, this.story.cycle), this.story.save());
  }
}

function keyOf(position, cycle) {
  return position * 2 ** 24 + cycle;
}
