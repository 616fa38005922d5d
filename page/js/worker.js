// The worker that owns the chip: answers calls, and runs by itself between them.

import { Machine } from "./machine.js";

const SLICE = 12; // milliseconds of work between looking for calls
const SHOWN = 33; // milliseconds between reports of a running chip
const CHUNK = 1024; // cycles between looks at the clock

let machine = null;
let running = false;

const calls = {
  load({ wasm, program }) {
    machine = new Machine(wasm, program);
    machine.onStep = (step) => postMessage({ event: "step", step });
    return {};
  },
  begin(options) {
    running = false;
    return machine.begin(options);
  },
  state: () => machine.state(),
  forward({ cycles }) {
    running = false;
    machine.forward(cycles);
    return machine.state();
  },
  back({ cycles }) {
    running = false;
    machine.back(cycles);
    return machine.state();
  },
  seek({ position, cycle }) {
    running = false;
    machine.seek(position, cycle);
    return machine.state();
  },
  run() {
    if (!running) {
      running = true;
      setTimeout(work);
    }
    return {};
  },
  pause() {
    running = false;
    return machine.state();
  },
};

let shown = 0;

function work() {
  if (!running) return;
  try {
    const until = performance.now() + SLICE;
    while (performance.now() < until && !machine.story.ended) machine.forward(CHUNK);
    if (machine.story.ended) running = false;
    if (performance.now() - shown > SHOWN || !running) {
      shown = performance.now();
      postMessage({ event: running ? "state" : "stopped", state: machine.state() });
    }
  } catch (error) {
    running = false;
    postMessage({ event: "broken", message: error.message });
  }
  if (running) setTimeout(work);
}

onmessage = ({ data: { id, name, args } }) => {
  try {
    postMessage({ id, result: calls[name](args ?? {}) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};
