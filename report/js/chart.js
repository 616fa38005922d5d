// The schedule, space by time: cycles to the right, the chip's row downward from west to east. A burst is a bar in its
// unit's row; what it puts on a stream is a band that leaves the row and crosses the chip, a position a cycle.

import { driveSpan, drives } from "./schedule.js";
import { rowsOf } from "./rows.js";
import { onTheme, themeColour, themeFont } from "./theme.js";

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
    this.widths = new Map(); // of labels
    this.hand = cursorOver(canvas, TOP - 10);
    this.smallHand = overview && cursorOver(overview, 0);
    this.#listen();
    onTheme(() => this.redraw());
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
    setHeight(this.canvas, this.height);
  }

  fit() {
    this.window(0, this.period);
  }

  // A window of cycles; it stays within the token.
  window(from, to) {
    const span = Math.min(Math.max(to - from, LEAST), this.period), before = this.from;
    this.from = Math.min(Math.max(from, 0), this.period - span);
    if (this.from !== before || this.to !== this.from + span) this.still = null;
    this.to = this.from + span;
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
    } else this.#pointHands();
  }

  mark(burst) {
    if (this.marked === burst) return;
    this.marked = burst;
    this.draw();
  }

  get width() {
    return sizeOf(this.canvas)[0];
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

  // Everything anew.
  redraw() {
    this.still = null;
    this.draw();
  }

  draw() {
    if (this.waiting || !this.rows) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.#paint();
    });
  }

  #paint() {
    for (const name of ["ink", "dim", "line", "stripe"]) this[name] = themeColour(name);
    this.font = themeFont();
    const g = fitted(this.canvas);
    if (!this.still || this.still.width !== this.canvas.width || this.still.height !== this.canvas.height) {
      const ratio = devicePixelRatio || 1;
      this.still = this.picture ??= document.createElement("canvas");
      this.still.width = this.canvas.width; // which also clears it
      this.still.height = this.canvas.height;
      const s = this.still.getContext("2d");
      s.scale(ratio, ratio);
      this.#scene(s);
      s.setTransform(1, 0, 0, 1, 0, 0);
      s.drawImage(this.#rowNames(ratio), 0, 0);
    }
    g.save();
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.clearRect(0, 0, this.canvas.width, this.canvas.height);
    g.drawImage(this.still, 0, 0);
    g.restore();
    if (this.marked) this.#outline(g, this.marked);
    if (this.overview) this.#paintOverview();
    this.#pointHands();
  }

  // The cursor lies over the pictures, so that it moves without painting them.
  #pointHands() {
    const { cursor } = this, [width] = this.overview ? sizeOf(this.overview) : [0];
    const x = cursor === null ? 0 : this.x(cursor), wide = cursor === null ? 0 : Math.max(this.x(cursor + 1) - x, 2);
    place(this.hand, cursor !== null && x + wide >= this.left && x <= this.width, x, wide);
    if (this.smallHand) place(this.smallHand, cursor !== null, ((cursor ?? 0) / this.period) * width - 1, 2);
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
    g.font = `10px ${this.font}`;
    g.textAlign = "left";
    for (const burst of seen) this.#bar(g, burst, scale);
    g.restore();
  }

  // A picture of the rows' names, which stays while the window moves.
  #rowNames(ratio) {
    const { left, height, ink, rows } = this, known = this.named;
    if (known && known.rows === rows && known.left === left && known.ink === ink && known.ratio === ratio) return known.picture;
    const picture = document.createElement("canvas");
    picture.width = Math.ceil(left * ratio);
    picture.height = Math.ceil(height * ratio);
    const g = picture.getContext("2d");
    g.scale(ratio, ratio);
    this.#names(g);
    this.named = { rows, left, ink, ratio, picture };
    return picture;
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
    const begin = Math.max(x, this.left) + 3, text = this.#shortened(g, burst.label, x + width - begin);
    g.fillStyle = this.palette.ink(burst.label);
    g.fillText(text, begin, row.y + 11);
  }

  // As much of a text as fits, about: to measure a text takes longer than to draw it, so that each is measured once.
  #shortened(g, text, room) {
    if (!this.widths.has(text)) this.widths.set(text, g.measureText(text).width);
    const width = this.widths.get(text);
    return width <= room ? text : text.slice(0, Math.max(Math.floor((text.length * room) / width) - 1, 0)).trimEnd();
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

  // The whole token in small: segments, and what of it is shown above.
  #paintOverview() {
    const g = fitted(this.overview), [width] = sizeOf(this.overview);
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
    new ResizeObserver(() => this.redraw()).observe(canvas);
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

// A bar over a canvas, from a height down, with a mark at its top if there is room; it takes no pointer.
function cursorOver(canvas, top) {
  const frame = document.createElement("div"), hand = document.createElement("div"), bar = document.createElement("div");
  Object.assign(frame.style, { position: "relative", overflow: "hidden" });
  Object.assign(hand.style, { position: "absolute", left: 0, top: `${top}px`, bottom: 0, pointerEvents: "none",
    willChange: "transform", visibility: "hidden" });
  Object.assign(bar.style, { position: "absolute", inset: 0, background: "var(--ink)" });
  hand.append(bar);
  if (top > 0) {
    const mark = document.createElement("div");
    Object.assign(mark.style, { position: "absolute", left: "50%", top: 0, margin: "0 -5px", borderTop: "8px solid var(--ink)",
      borderLeft: "5px solid transparent", borderRight: "5px solid transparent" });
    bar.style.top = "4px";
    hand.append(mark);
  }
  canvas.replaceWith(frame);
  frame.append(canvas, hand);
  return { hand, bar };
}

function place({ hand, bar }, shown, x, width) {
  const pixels = Math.round(width);
  hand.style.visibility = shown ? "visible" : "hidden";
  hand.style.transform = `translateX(${Math.round(x)}px)`;
  if (hand.wide === pixels) return;
  hand.wide = pixels;
  hand.style.width = `${pixels}px`;
  bar.style.opacity = width > 4 ? 0.16 : 0.9;
}

// Sizes of canvases as they are shown: to ask an element for its size makes the browser lay the page out at once.
const shownSizes = new WeakMap();
const sizeObserver = new ResizeObserver((entries) => {
  for (const { target } of entries) shownSizes.set(target, [target.clientWidth, target.clientHeight]);
});

// [width, height] of a canvas.
export function sizeOf(canvas) {
  if (!shownSizes.has(canvas)) {
    shownSizes.set(canvas, [canvas.clientWidth, canvas.clientHeight]);
    sizeObserver.observe(canvas);
  }
  return shownSizes.get(canvas);
}

// Gives a canvas another height.
export function setHeight(canvas, pixels) {
  canvas.style.height = `${pixels}px`;
  shownSizes.delete(canvas);
}

// The context of a canvas as large as it is shown, scaled to the screen's pixels.
export function fitted(canvas) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = sizeOf(canvas).map((pixels) => Math.round(pixels * ratio));
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  return g;
}
