// The schedule, space by time: cycles to the right, the chip's row downward from west to east. A burst is a bar in its
// unit's row; what it puts on a stream is a band that leaves the row and crosses the chip, a position a cycle.

import { driveSpan, drives } from "./schedule.js";
import { rowsOf } from "./rows.js";

const ROW = 15; // pixels
const GAP = 9; // between units
const TOP = 22; // for the axis
const OVERVIEW = 26;
const LEAST = 24; // cycles that a window shows at least

export class Chart {
  // canvas, overview: elements. onPick(cycle): somebody chose a cycle. onHover(burst or null, event).
  constructor({ canvas, overview, header, isa, palette, onPick = () => {}, onHover = () => {} }) {
    Object.assign(this, { canvas, overview, header, isa, palette, onPick, onHover });
    this.cursor = null;
    this.bursts = [];
    this.from = 0;
    this.to = 1;
    this.period = 1;
    this.marked = null;
    this.#listen();
  }

  // Shows a bucket's token: bursts of `schedule.bursts`.
  show(bucket, list) {
    if (this.bursts === list) return;
    const whole = this.period <= 1 || (this.from === 0 && this.to === this.period);
    this.bucket = bucket;
    this.bursts = list;
    this.period = bucket.period;
    this.rows = rowsOf(this.header, list);
    this.#place();
    if (whole || this.to > this.period) this.fit();
    this.still = null;
  }

  // Rows' places; the middle of each position, where bands begin and end.
  #place() {
    let y = TOP, unit = this.rows[0]?.queue;
    this.middle = new Map();
    for (const row of this.rows) {
      if (row.queue !== unit) y += GAP;
      unit = row.queue;
      row.y = y;
      y += ROW;
    }
    this.height = y + 6;
    for (const row of this.rows) {
      const [low, high] = this.middle.get(row.position) ?? [Infinity, -Infinity];
      this.middle.set(row.position, [Math.min(low, row.y), Math.max(high, row.y + ROW)]);
    }
    this.index = new Map(this.rows.map((row) => [`${row.queue} ${row.engine}`, row]));
    this.canvas.style.height = `${this.height}px`;
  }

  fit() {
    this.window(0, this.period);
  }

  // A window of cycles; it stays within the token.
  window(from, to) {
    const span = Math.min(Math.max(to - from, LEAST), this.period);
    this.from = Math.min(Math.max(from, 0), this.period - span);
    this.to = this.from + span;
    this.still = null;
    this.draw();
  }

  zoom(factor, at = (this.from + this.to) / 2) {
    this.window(at - (at - this.from) * factor, at + (this.to - at) * factor);
  }

  // The cursor's cycle, or null for none; follow: keep it in sight.
  point(cycle, follow = false) {
    this.cursor = cycle;
    const span = this.to - this.from;
    if (follow && cycle !== null && (cycle < this.from + span * 0.1 || cycle > this.to - span * 0.25)) {
      this.window(cycle - span * 0.3, cycle + span * 0.7);
    } else this.draw();
  }

  mark(burst) {
    if (this.marked === burst) return;
    this.marked = burst;
    this.draw();
  }

  // As of the last painting: to ask the canvas for every bar makes the browser lay the page out again.
  get width() {
    return this.painted ?? this.canvas.clientWidth;
  }

  get left() {
    return this.width < 560 ? 92 : 168;
  }

  x(cycle) {
    return this.left + ((cycle - this.from) / (this.to - this.from)) * (this.width - this.left - 8);
  }

  cycleAt(x) {
    return this.from + ((x - this.left) / (this.width - this.left - 8)) * (this.to - this.from);
  }

  // --- drawing -----------------------------------------------------------------------------------------------------

  draw() {
    if (this.waiting || !this.rows) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#paint();
    });
  }

  #paint() {
    const style = getComputedStyle(this.canvas);
    this.ink = style.getPropertyValue("--ink").trim() || "#1c2430";
    this.dim = style.getPropertyValue("--dim").trim() || "#5a6474";
    this.line = style.getPropertyValue("--line").trim() || "#dde2ea";
    this.paper = style.getPropertyValue("--paper").trim() || "#fff";
    this.stripe = style.getPropertyValue("--stripe").trim() || "#f4f6f9";
    this.font = style.fontFamily || "system-ui, sans-serif";
    const g = fitted(this.canvas);
    this.painted = this.canvas.clientWidth;
    if (!this.still || this.still.width !== this.canvas.width || this.still.height !== this.canvas.height
        || this.stillInk !== this.ink) {
      this.still = document.createElement("canvas");
      this.still.width = this.canvas.width;
      this.still.height = this.canvas.height;
      this.stillInk = this.ink;
      const s = this.still.getContext("2d");
      s.scale(devicePixelRatio || 1, devicePixelRatio || 1);
      this.#scene(s);
    }
    g.save();
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, this.canvas.width, this.canvas.height);
    g.drawImage(this.still, 0, 0);
    g.restore();
    if (this.marked) this.#outline(g, this.marked);
    if (this.cursor !== null) this.#line(g, this.cursor, this.height);
    if (this.overview) this.#paintOverview();
  }

  #scene(g) {
    const { width } = this;
    g.save();
    g.beginPath();
    g.rect(this.left, 0, width - this.left, this.height);
    g.clip();
    this.#axis(g);
    const seen = this.bursts.filter((burst) => burst.last >= this.from - 16 && burst.first <= this.to);
    const scale = this.x(1) - this.x(0);
    if (scale > 0.9) for (const burst of seen) this.#bands(g, burst, scale);
    for (const burst of seen) this.#bar(g, burst, scale);
    g.restore();
    this.#names(g);
  }

  #axis(g) {
    const { width } = this;
    for (const [position, [low, high]] of this.middle) {
      if (position % 2) continue;
      g.fillStyle = this.stripe;
      g.fillRect(this.left, low - GAP / 2, width, high - low + GAP);
    }
    g.font = `10.5px ${this.font}`;
    g.textAlign = "center";
    const span = this.to - this.from, room = (width - this.left) / 72;
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 100000].find((one) => span / one <= room) ?? 1e6;
    for (let cycle = Math.ceil(this.from / step) * step; cycle <= this.to; cycle += step) {
      const x = this.x(cycle);
      g.strokeStyle = this.line;
      g.lineWidth = 1;
      g.beginPath();
      g.moveTo(x, TOP - 4);
      g.lineTo(x, this.height);
      g.stroke();
      g.fillStyle = this.dim;
      g.textAlign = x < this.left + 16 ? "left" : x > width - 24 ? "right" : "center";
      g.fillText(cycle.toLocaleString("en"), x, 12);
    }
    for (const segment of this.bucket.segments) {
      for (let turn = 0; turn < segment.turns; turn++) {
        const x = this.x(segment.start + turn * segment.length);
        g.strokeStyle = this.dim;
        g.setLineDash([3, 3]);
        g.beginPath();
        g.moveTo(x, TOP - 6);
        g.lineTo(x, this.height);
        g.stroke();
        g.setLineDash([]);
      }
    }
  }

  #bar(g, burst, scale) {
    const row = this.index.get(`${burst.queue} ${burst.engine}`);
    const x = this.x(burst.first), width = Math.max(this.x(burst.last + 1) - x - (scale > 3 ? 1 : 0), 1);
    g.fillStyle = this.palette.colour(burst.label);
    g.fillRect(x, row.y + 1.5, width, ROW - 3);
    if (width < 26) return;
    g.save();
    g.beginPath();
    g.rect(x, row.y, width, ROW);
    g.clip();
    g.fillStyle = this.palette.ink(burst.label);
    g.font = `10px ${this.font}`;
    g.textAlign = "left";
    g.fillText(burst.label, Math.max(x, this.left) + 3, row.y + 11);
    g.restore();
  }

  // What a burst drives, as bands from its row to the last unit that takes it.
  #bands(g, burst, scale) {
    for (const drive of drives(burst, this.isa, this.header)) {
      const goal = burst.reach[drive.dir];
      if (goal < 0) continue;
      const [first, last] = driveSpan(burst, drive);
      const step = Math.sign(goal - burst.position), hops = Math.abs(goal - burst.position);
      const row = this.index.get(`${burst.queue} ${burst.engine}`);
      const begin = row.y + ROW / 2, [low, high] = this.middle.get(goal);
      const end = step > 0 ? Math.max(low, begin) : Math.min(high, begin);
      const width = Math.max(this.x(last + 1) - this.x(first), 1);
      const x0 = this.x(first), x1 = this.x(first + hops);
      g.globalAlpha = drive.group ? 0.16 : 0.3;
      g.fillStyle = this.palette.colour(burst.label);
      g.beginPath();
      g.moveTo(x0, begin);
      g.lineTo(x0 + width, begin);
      g.lineTo(x1 + width, end);
      g.lineTo(x1, end);
      g.fill();
      if (scale > 2.5) {
        g.globalAlpha = 0.75;
        g.strokeStyle = this.palette.colour(burst.label);
        g.lineWidth = 0.8;
        g.beginPath();
        g.moveTo(x0, begin);
        g.lineTo(x1, end);
        g.stroke();
      }
      g.globalAlpha = 1;
    }
  }

  #names(g) {
    const narrow = this.left < 100;
    g.textAlign = "right";
    let unit = null;
    for (const row of this.rows) {
      g.font = `10.5px ${this.font}`;
      g.fillStyle = this.dim;
      g.fillText(narrow ? row.name.slice(0, 9) : row.name, this.left - 7, row.y + 11);
      if (row.queue !== unit) {
        g.fillStyle = this.ink;
        g.font = `600 ${narrow ? 9 : 11}px ${this.font}`;
        g.textAlign = "left";
        g.fillText(narrow ? row.queue.replace("MEM_", "") : row.title, 2, row.y + 11);
        g.textAlign = "right";
      }
      unit = row.queue;
    }
  }

  #outline(g, burst) {
    const row = this.index.get(`${burst.queue} ${burst.engine}`);
    if (!row) return;
    const x = Math.max(this.x(burst.first), this.left), end = this.x(burst.last + 1);
    if (end < this.left) return;
    g.strokeStyle = this.ink;
    g.lineWidth = 2;
    g.strokeRect(x - 1, row.y + 0.5, Math.max(end - x, 2) + 1, ROW - 1);
  }

  #line(g, cycle, height) {
    const x = this.x(cycle), width = Math.max(this.x(cycle + 1) - x, 2);
    if (x + width < this.left) return;
    g.fillStyle = this.ink;
    g.globalAlpha = width > 4 ? 0.16 : 0.9;
    g.fillRect(x, TOP - 6, width, height);
    g.globalAlpha = 1;
    g.beginPath();
    g.moveTo(x + width / 2 - 5, TOP - 10);
    g.lineTo(x + width / 2 + 5, TOP - 10);
    g.lineTo(x + width / 2, TOP - 2);
    g.fill();
  }

  // The whole token in small: segments, and what of it is shown above.
  #paintOverview() {
    const g = fitted(this.overview), width = this.overview.clientWidth;
    const x = (cycle) => (cycle / this.period) * width;
    g.clearRect(0, 0, width, OVERVIEW);
    g.font = `10px ${this.font}`;
    g.textAlign = "left";
    this.bucket.segments.forEach((segment) => {
      for (let turn = 0; turn < segment.turns; turn++) {
        const from = x(segment.start + turn * segment.length), to = x(segment.start + (turn + 1) * segment.length);
        g.fillStyle = this.stripe;
        g.fillRect(from + 0.5, 3, to - from - 1, OVERVIEW - 6);
        g.strokeStyle = this.line;
        g.strokeRect(from + 0.5, 3, to - from - 1, OVERVIEW - 6);
        g.fillStyle = this.dim;
        const text = segment.turns > 1 ? `${segment.name} ${turn + 1}` : segment.name;
        if (g.measureText(text).width < to - from - 6) g.fillText(text, from + 5, 17);
      }
    });
    g.strokeStyle = this.ink;
    g.lineWidth = 1.5;
    g.strokeRect(x(this.from) + 0.75, 1, Math.max(x(this.to) - x(this.from) - 1.5, 3), OVERVIEW - 2);
    if (this.cursor !== null) {
      g.fillStyle = this.ink;
      g.fillRect(x(this.cursor) - 1, 0, 2, OVERVIEW);
    }
  }

  // --- pointer -----------------------------------------------------------------------------------------------------

  burstAt(x, y) {
    const row = this.rows?.find((one) => y >= one.y && y < one.y + ROW);
    if (!row || x < this.left) return null;
    const slack = Math.max(0, 3 / (this.x(1) - this.x(0)) - 0.5), cycle = this.cycleAt(x);
    let best = null, distance = Infinity;
    for (const burst of this.bursts) {
      if (burst.queue !== row.queue || burst.engine !== row.engine) continue;
      const away = Math.max(burst.first - cycle, cycle - burst.last - 1, 0);
      if (away <= slack && away < distance) [best, distance] = [burst, away];
    }
    return best;
  }

  #listen() {
    let drag = null;
    const pointers = new Map();
    const { canvas } = this;
    canvas.addEventListener("pointerdown", (event) => {
      pointers.set(event.pointerId, event.offsetX);
      drag = { x: event.offsetX, from: this.from, to: this.to, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!pointers.has(event.pointerId)) {
        this.onHover(this.burstAt(event.offsetX, event.offsetY), event);
        return;
      }
      if (pointers.size === 2) {
        const before = spread(pointers);
        pointers.set(event.pointerId, event.offsetX);
        const now = spread(pointers);
        if (before > 8 && now > 8) this.zoom(before / now, this.cycleAt(middleOf(pointers)));
        drag = null;
        return;
      }
      pointers.set(event.pointerId, event.offsetX);
      if (!drag) return;
      const away = event.offsetX - drag.x;
      if (Math.abs(away) > 4) drag.moved = true;
      if (drag.moved) {
        const shift = (away / (canvas.clientWidth - this.left - 8)) * (drag.to - drag.from);
        this.window(drag.from - shift, drag.to - shift);
      }
    });
    const release = (event) => {
      pointers.delete(event.pointerId);
      if (drag && !drag.moved && event.type === "pointerup" && event.offsetX >= this.left) {
        this.onPick(Math.max(0, Math.floor(this.cycleAt(event.offsetX))), this.burstAt(event.offsetX, event.offsetY));
      }
      drag = null;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", (event) => this.onHover(null, event));
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        const shift = (event.deltaX / canvas.clientWidth) * (this.to - this.from);
        this.window(this.from + shift, this.to + shift);
      } else if (event.ctrlKey || event.altKey) this.zoom(Math.exp(event.deltaY * 0.004), this.cycleAt(event.offsetX));
      else return;
      event.preventDefault();
    }, { passive: false });
    if (this.overview) {
      const jump = (event) => {
        if (event.type === "pointermove" && !event.buttons) return;
        const at = (event.offsetX / this.overview.clientWidth) * this.period, half = (this.to - this.from) / 2;
        this.window(at - half, at + half);
      };
      this.overview.addEventListener("pointerdown", jump);
      this.overview.addEventListener("pointermove", jump);
    }
    new ResizeObserver(() => {
      this.still = null;
      this.draw();
    }).observe(canvas);
  }
}

function spread(pointers) {
  const [a, b] = [...pointers.values()];
  return Math.abs(a - b);
}

function middleOf(pointers) {
  const [a, b] = [...pointers.values()];
  return (a + b) / 2;
}

// The context of a canvas as large as it is shown, scaled to the screen's pixels.
export function fitted(canvas) {
  const ratio = devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * ratio), height = Math.round(canvas.clientHeight * ratio);
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  return g;
}
