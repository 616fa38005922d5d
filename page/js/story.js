// A story that the chip tells: token by token, each token's cycles as measured beside those that were promised.

import { seedStates, temperatureWord } from "./sampler.js";
import { Utf8Stream } from "./payload.js";

const UNKNOWN = -1; // an entry of the token table that the chip is to fill

export class Story {
  // prompt: token ids, BOS first. The chip has its program loaded and runs nothing.
  constructor(chip, tokenizer, { prompt, temperature = 0, seed = 0n, positions }) {
    this.chip = chip;
    this.header = chip.header;
    this.tokenizer = tokenizer;
    this.prompt = prompt;
    this.positions = Math.min(positions ?? this.header.context, this.header.context);
    this.steps = [];
    this.inToken = false; // between a start pulse and the end of its period
    this.ended = false;
    this.#fill(temperatureWord(temperature), seedStates(this.header.model.vocab, seed));
  }

  #fill(temperature, states) {
    const { lanes } = this.header.config;
    const tokens = new Int32Array(this.header.symbols.tokens[2] * lanes).fill(UNKNOWN);
    tokens.set(this.prompt);
    this.chip.writeTensor("tokens", tokens);
    this.chip.writeTensor("token", new Int32Array(lanes).fill(this.prompt[0]));
    this.chip.writeTensor("position", new Int32Array(lanes));
    this.chip.writeTensor("temperature", new Int32Array(lanes).fill(temperature));
    this.chip.writeTensor("noise", states);
    this.chip.write([[this.chip.space.CONTROL, this.chip.control.POSITION, 0]]);
  }

  get position() {
    return this.steps.length;
  }

  get previous() {
    return this.steps.length ? this.steps.at(-1).token : this.prompt[0];
  }

  // Cycles that the token at a position takes: known before it runs.
  predicted(position) {
    return this.header.buckets.find((bucket) => position < bucket.limit).period;
  }

  // Cycles since the start pulse of the token at work.
  get cycle() {
    return this.inToken ? this.chip.cycle - this.began : 0;
  }

  // Starts the next token and stands in the cycle of its start pulse.
  begin() {
    this.chip.write([[this.chip.space.CONTROL, this.chip.control.RUN, 1]]);
    for (let n = 0; !this.chip.starting; n++) {
      if (n > 1000) throw new Error(`the chip does not start token ${this.position}`);
      this.chip.advance(1);
    }
    this.began = this.chip.cycle;
    this.inToken = true;
  }

  // Passes at most so many cycles of the present token; the finished step if it ended, else null.
  advance(cycles) {
    if (!this.inToken) this.begin();
    this.chip.advance(cycles);
    if (this.chip.running) return null;
    const measured = this.chip.cycle - this.began;
    this.inToken = false;
    return this.#finish(measured);
  }

  // Runs the next token, or the rest of the present one.
  token() {
    for (;;) {
      const step = this.advance(1 << 20);
      if (step) return step;
    }
  }

  #finish(measured) {
    const position = this.position, predicted = this.predicted(position);
    const token = this.chip.tokenAt(position + 1);
    const errors = this.chip.errors();
    if (errors.length) throw new Error(`the chip reports ${errors.join(", ")} at position ${position}`);
    const ends = position + 1 >= this.prompt.length && this.tokenizer.stops.includes(token);
    const bytes = [...(position ? [] : this.#opening()), ...(ends ? [] : this.tokenizer.piece(this.previous, token))];
    const step = { position, token, bytes, predicted, measured };
    this.steps.push(step);
    this.ended = ends || this.position >= this.positions;
    return { ...step, ends: this.ended, prompt: position + 1 < this.prompt.length };
  }

  // The bytes of the prompt's first token, which no step gives: none of BOS.
  #opening() {
    const [first] = this.prompt;
    return this.tokenizer.stops.includes(first) ? [] : this.tokenizer.piece(null, first);
  }

  // The state beside the chip's memory.
  save() {
    const { inToken, began, ended } = this;
    return { inToken, began, ended, steps: [...this.steps] };
  }

  restore(state) {
    this.inToken = state.inToken;
    this.began = state.began;
    this.ended = state.ended;
    this.steps = [...state.steps];
  }
}

// The text of steps, a piece each; what ends inside a character waits for the next one.
export function texts(steps) {
  const stream = new Utf8Stream();
  return steps.map((step, n) => stream.push(step.bytes) + (n + 1 === steps.length ? stream.end() : ""));
}
