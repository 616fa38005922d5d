// The transport: runs the chip in its worker at full speed, in slow motion, cycle by cycle, forward and back.

export const SPEEDS = [1, 2, 4, 8, 15, 30, 60, 250, 1000, Infinity]; // cycles a second

// The worker, out of the page itself or from a file beside it.
export function startWorker() {
  const element = document.getElementById("worker.js");
  if (!element) return new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  return new Worker(URL.createObjectURL(new Blob([element.textContent], { type: "text/javascript" })));
}

export class Player extends EventTarget {
  constructor(worker) {
    super();
    this.worker = worker;
    this.waiting = new Map();
    this.calls = 0;
    this.speed = Infinity;
    this.playing = false;
    this.view = null; // where the chip stands
    this.fraction = 1; // of the way from the last cycle to this one, in slow motion
    worker.onmessage = ({ data }) => this.#hear(data);
    worker.onerror = (event) => this.#tell("broken", { message: event.message || "the worker does not start" });
  }

  call(name, args, transfer = []) {
    return new Promise((resolve, reject) => {
      const id = ++this.calls;
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, name, args }, transfer);
    });
  }

  #hear(data) {
    if (data.id) {
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error) reject(new Error(data.error));
      else resolve(data.result);
    } else if (data.event === "step") this.#tell("step", data.step);
    else if (data.event === "broken") this.#tell("broken", data);
    else {
      if (data.event === "stopped") this.playing = false;
      this.#see(data.state);
    }
  }

  #tell(kind, detail) {
    this.dispatchEvent(Object.assign(new Event(kind), { detail }));
  }

  #see(view) {
    this.view = view;
    this.#tell("view", view);
  }

  get full() {
    return this.playing && this.speed === Infinity;
  }

  async begin(options) {
    this.playing = false;
    this.generation = (this.generation ?? 0) + 1;
    const view = await this.call("begin", options);
    this.#tell("began", options);
    this.#see(view);
  }

  async play() {
    if (this.playing || this.view?.ended) return;
    this.playing = true;
    this.#tell("mode", null);
    if (this.speed === Infinity) await this.call("run");
    else this.#slow();
  }

  async pause() {
    this.goal = null;
    if (!this.playing) return;
    this.playing = false;
    this.fraction = 1;
    this.#see(await this.call("pause"));
    this.#tell("mode", null);
  }

  async setSpeed(speed) {
    const playing = this.playing;
    await this.pause();
    this.speed = speed;
    this.#tell("mode", null);
    if (playing) await this.play();
  }

  // So many cycles forward, or back if negative.
  async step(cycles) {
    await this.pause();
    this.fraction = 1;
    this.#see(await (cycles < 0 ? this.call("back", { cycles: -cycles }) : this.call("forward", { cycles })));
  }

  async seek(position, cycle) {
    await this.pause();
    this.fraction = 1;
    this.#see(await this.call("seek", { position, cycle }));
  }

  // Plays to a cycle of the present token, then pauses.
  async playTo(position, cycle, speed) {
    await this.pause();
    this.speed = speed;
    this.goal = { position, cycle }; // until somebody pauses
    await this.play();
  }

  // Slow motion: a cycle, or a few, whenever their time has come; between, `fraction` tells how far the next one is.
  #slow() {
    const mine = (this.generation = (this.generation ?? 0) + 1);
    let last = performance.now(), due = 1, asked = false;
    const frame = async (now) => {
      if (!this.playing || this.speed === Infinity || this.generation !== mine) return;
      due += ((now - last) / 1000) * this.speed;
      last = now;
      if (due >= 1 && !asked) {
        let cycles = Math.min(Math.floor(due), 64);
        const { goal, view } = this;
        if (goal && view.position === goal.position) cycles = Math.min(cycles, goal.cycle - view.cycle);
        due = due >= 64 ? 0 : due - Math.floor(due);
        asked = true;
        if (cycles > 0) this.view = await this.call("forward", { cycles });
        asked = false;
        if (!this.playing || this.generation !== mine) return;
        const over = goal && (this.view.position > goal.position || this.view.cycle >= goal.cycle);
        if (this.view.ended || over) {
          this.playing = false;
          this.goal = null;
          this.fraction = 1;
          this.#see(this.view);
          this.#tell("mode", null);
          return;
        }
        this.#tell("view", this.view);
      }
      this.fraction = Math.min(due, 1);
      this.#tell("frame", null);
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }
}
