// The story as it comes, and the ledger beside it: what each token was to take, what it took, and how fast that is.

import { $, make, number } from "./dom.js";
import { Utf8Stream } from "./payload.js";
import { fitted } from "./chart.js";

export class StoryView {
  constructor({ header, player, onToken }) {
    Object.assign(this, { header, player, onToken });
    this.steps = [];
    $("clock").addEventListener("input", () => this.ledger());
    new ResizeObserver(() => this.#bars()).observe($("bars"));
    $("bars").addEventListener("click", (event) => {
      const position = Math.floor((event.offsetX / $("bars").clientWidth) * this.header.context);
      if (position <= this.steps.length) this.onToken(position);
    });
  }

  begin() {
    this.steps = [];
    this.spans = [];
    this.stream = new Utf8Stream();
    this.began = null;
    this.spent = 0;
    this.done = false;
    $("text").replaceChildren();
    $("again").hidden = true;
    this.ledger();
  }

  // A token is finished. Tokens that are run again, after going back, are checked against what they were.
  step(step) {
    const before = this.steps[step.position];
    if (before) {
      if (before.token !== step.token || before.measured !== step.measured) throw new Error(`token ${step.position} differs when run again`);
      return;
    }
    this.steps.push(step);
    const text = this.stream.push(step.bytes) + (step.ends ? this.stream.end() : "");
    const span = make("span", { className: step.prompt ? "token given" : "token" }, text);
    span.dataset.position = step.position;
    span.title = `token ${step.position + 1}: ${number(step.predicted)} cycles predicted, ${number(step.measured)} measured`;
    this.spans.push(span);
    $("text").append(span);
    if (step.ends) {
      this.done = true;
      $("again").hidden = false;
    }
    this.ledger();
  }

  // Milliseconds that the simulation has been at work at full speed, and the cycles and tokens that it did in them.
  pace(milliseconds, cycles, tokens) {
    this.paced = { milliseconds, cycles, tokens };
    this.ledger();
  }

  point(position) {
    if (this.pointed === position) return;
    this.spans?.[this.pointed]?.classList.remove("now");
    this.spans?.[position]?.classList.add("now");
    this.pointed = position;
    this.#bars();
  }

  ledger() {
    const { steps } = this, last = steps.at(-1);
    const predicted = sum(steps, "predicted"), measured = sum(steps, "measured");
    const equal = steps.every((step) => step.predicted === step.measured);
    $("token-predicted").textContent = last ? number(last.predicted) : "–";
    $("token-measured").textContent = last ? number(last.measured) : "–";
    $("all-predicted").textContent = steps.length ? number(predicted) : "–";
    $("all-measured").textContent = steps.length ? number(measured) : "–";
    $("count").textContent = steps.length;
    $("verdict").textContent = !steps.length ? "" : equal ? "equal, every token" : "NOT EQUAL";
    $("verdict").classList.toggle("bad", !equal);
    const clock = Math.max(Number($("clock").value) || 0, 0);
    $("chip-speed").textContent = steps.length && clock ? number((clock * 1e6 * steps.length) / predicted) : "–";
    const { paced } = this;
    $("sim-speed").textContent = paced?.milliseconds > 200 ? number((1000 * paced.tokens) / paced.milliseconds, 1) : "–";
    $("sim-cycles").textContent = paced?.milliseconds > 200 ? number((1000 * paced.cycles) / paced.milliseconds) : "–";
    this.#bars();
  }

  // Cycles of each token: what was promised for every position as a stair, what was measured as bars.
  #bars() {
    const canvas = $("bars"), g = fitted(canvas), style = getComputedStyle(canvas);
    const { context, buckets } = this.header, width = canvas.clientWidth, height = canvas.clientHeight;
    const most = Math.max(...buckets.map((bucket) => bucket.period)) * 1.06;
    const x = (position) => (position / context) * width, y = (cycles) => height - 2 - (cycles / most) * (height - 6);
    g.clearRect(0, 0, width, height);
    for (const [position, step] of this.steps.entries()) {
      g.fillStyle = style.getPropertyValue(position === this.pointed ? "--accent" : step.prompt ? "--bar-given" : "--bar").trim();
      g.fillRect(x(position) + 0.2, y(step.measured), Math.max(x(1) - 0.5, 0.8), height - 2 - y(step.measured));
    }
    g.strokeStyle = style.getPropertyValue("--ink").trim();
    g.lineWidth = 1.3;
    g.beginPath();
    let from = 0;
    for (const bucket of buckets) {
      const to = Math.min(bucket.limit, context);
      g.lineTo(x(from), y(bucket.period));
      g.lineTo(x(to), y(bucket.period));
      from = to;
    }
    g.stroke();
  }
}

function sum(steps, key) {
  return steps.reduce((total, step) => total + step[key], 0);
}
