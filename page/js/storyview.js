// The story as it comes, and the ledger beside it: what each token was to take, what it took, and how fast that is.

import { $, make, number, write } from "./dom.js";
import { Utf8Stream } from "./payload.js";
import { fitted, sizeOf } from "./chart.js";
import { onTheme, themeColour } from "./theme.js";

export class StoryView {
  constructor({ header, player, onToken }) {
    Object.assign(this, { header, player, onToken });
    this.steps = [];
    this.predicted = this.measured = 0;
    this.equal = true;
    $("clock").addEventListener("input", () => this.ledger());
    new ResizeObserver(() => this.ledger()).observe($("bars"));
    onTheme(() => this.ledger());
    $("bars").addEventListener("click", (event) => {
      const position = Math.floor((event.offsetX / $("bars").clientWidth) * this.header.context);
      if (position <= this.steps.length) this.onToken(position);
    });
  }

  begin() {
    this.steps = [];
    this.spans = [];
    this.stream = new Utf8Stream();
    this.paced = null;
    this.predicted = this.measured = 0;
    this.equal = true;
    this.done = false;
    $("text").replaceChildren();
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
    this.predicted += step.predicted;
    this.measured += step.measured;
    this.equal &&= step.predicted === step.measured;
    const text = this.stream.push(step.bytes) + (step.ends ? this.stream.end() : "");
    const span = make("span", { className: step.prompt ? "token given" : "token" }, text);
    span.dataset.position = step.position;
    span.title = `token ${step.position + 1}: ${number(step.predicted)} cycles predicted, ${number(step.measured)} measured`;
    this.spans.push(span);
    $("text").append(span);
    this.done ||= step.ends;
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
    this.ledger();
  }

  // Brings figures and bars up to date, once a frame.
  ledger() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#figures();
      this.#bars();
    });
  }

  #figures() {
    const { steps, predicted, measured, paced } = this, last = steps.at(-1);
    write($("token-predicted"), last ? number(last.predicted) : "–");
    write($("token-measured"), last ? number(last.measured) : "–");
    write($("all-predicted"), last ? number(predicted) : "–");
    write($("all-measured"), last ? number(measured) : "–");
    write($("count"), steps.length);
    write($("verdict"), !last ? "" : this.equal ? "equal, every token" : "NOT EQUAL");
    $("verdict").classList.toggle("bad", !this.equal);
    const clock = Math.max(Number($("clock").value) || 0, 0);
    write($("chip-speed"), last && clock ? number((clock * 1e6 * steps.length) / predicted) : "–");
    write($("sim-speed"), paced?.milliseconds > 200 ? number((1000 * paced.tokens) / paced.milliseconds, 1) : "–");
    write($("sim-cycles"), paced?.milliseconds > 200 ? number((1000 * paced.cycles) / paced.milliseconds) : "–");
    $("again").hidden = !this.done;
  }

  // Cycles of each token: what was promised for every position as a stair, what was measured as bars.
  #bars() {
    const canvas = $("bars"), g = fitted(canvas);
    const { context, buckets } = this.header, [width, height] = sizeOf(canvas);
    const [now, given, other] = ["accent", "bar-given", "bar"].map(themeColour);
    const most = Math.max(...buckets.map((bucket) => bucket.period)) * 1.06;
    const x = (position) => (position / context) * width, y = (cycles) => height - 2 - (cycles / most) * (height - 6);
    g.clearRect(0, 0, width, height);
    for (const [position, step] of this.steps.entries()) {
      g.fillStyle = position === this.pointed ? now : step.prompt ? given : other;
      g.fillRect(x(position) + 0.2, y(step.measured), Math.max(x(1) - 0.5, 0.8), height - 2 - y(step.measured));
    }
    g.strokeStyle = themeColour("ink");
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
