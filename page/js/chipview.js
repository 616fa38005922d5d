// The chip from above: its units in a row, and the stream registers between them with what stands in them now.

import { fitted, setHeight, sizeOf } from "./chart.js";
import { make, setStyle, still, write } from "./dom.js";
import { sentence } from "./describe.js";
import { themeColour, themeFont, onTheme } from "./theme.js";

const LINES = { MEM: ["read", "write", "index"], MXM: ["load", "mac", "drain"], SXM: ["lanes"], VXM: ["alu"], C2C: ["send", "receive"] };
const WORDS = { read: "read", write: "write", index: "index", load: "load", mac: "multiply", drain: "drain", lanes: "switch", alu: "compute", send: "send", receive: "receive" };

export class ChipView {
  constructor({ cards, east, west, header, isa, palette, onHover }) {
    Object.assign(this, { header, isa, palette, onHover, canvases: { E: east, W: west } });
    this.bursts = [];
    this.active = new Map();
    this.labelled = true; // streams carry the names of operations
    this.#build(cards);
    for (const [dir, canvas] of Object.entries(this.canvases)) this.#listen(dir, canvas);
    const fit = () => {
      for (const canvas of [east, west]) setHeight(canvas, this.#geometry("W", canvas).height);
      this.draw(1);
    };
    new ResizeObserver(fit).observe(east);
    onTheme(() => this.draw(1));
  }

  // Cards of the units, in columns by position.
  #build(cards) {
    this.lines = new Map();
    this.cards = new Map();
    for (let position = 0; position < this.header.config.positions; position++) {
      const column = make("div", { className: "column" });
      const here = this.header.row.map((name) => this.header.queues.find((queue) => queue.name === name))
        .filter((queue) => queue.position === position);
      for (const queue of here) column.append(this.#card(queue));
      if (!here.length) column.append(make("div", { className: "unit none" }, "no lane switch on this side"));
      cards.append(column);
    }
  }

  #card(queue) {
    const [kind, where] = splitTitle(queue.title);
    const card = make("div", { className: `unit ${queue.unit.toLowerCase()}`, tabIndex: 0 },
      make("h4", {}, kind, where ? make("span", {}, ` ${where}`) : ""));
    card.dataset.queue = queue.name;
    if (queue.unit === "MXM") {
      this.grids ??= new Map();
      const grid = make("div", { className: "grid", title: `${this.header.config.rows} rows of ${this.header.config.lanes} multipliers` });
      this.grids.set(queue.name, grid);
      card.append(grid);
    }
    for (const engine of LINES[queue.unit]) {
      const line = make("div", { className: "engine" }, make("b", {}, WORDS[engine]), make("span", {}, "–"));
      this.lines.set(`${queue.name} ${engine}`, line);
      card.append(line);
    }
    if (queue.unit === "VXM") card.append((this.formula = make("p", { className: "formula" })));
    card.addEventListener("pointerenter", (event) => this.onHover(this.working(queue.name)[0] ?? null, event, queue));
    card.addEventListener("focus", (event) => this.onHover(this.working(queue.name)[0] ?? null, event, queue));
    card.addEventListener("pointerleave", (event) => this.onHover(null, event));
    card.addEventListener("blur", (event) => this.onHover(null, event));
    this.cards.set(queue.name, card);
    return card;
  }

  // Bursts of a queue that work in the present cycle.
  working(queue) {
    return [...this.active.values()].filter((burst) => burst.queue === queue);
  }

  // Takes a state of the chip, its bursts and the drivers' table; what each unit does is written by `tell`.
  show(view, bursts, drivers) {
    this.view = view;
    this.drivers = drivers;
    this.active = new Map();
    for (const burst of bursts.length ? workingAt(bursts, view.cycle) : []) {
      this.active.set(`${burst.queue} ${burst.engine}`, burst);
    }
  }

  tell() {
    for (const [key, line] of this.lines) this.#line(key, line);
    for (const [queue, grid] of this.grids ?? []) {
      const mac = this.active.get(`${queue} mac`);
      grid.classList.toggle("on", Boolean(mac));
      setStyle(grid, "--on", mac ? this.palette.colour(mac.label) : "transparent");
    }
    const alu = this.active.get("VXM alu");
    write(this.formula, alu ? sentence(alu, this.header) : "");
    for (const [queue, card] of this.cards) card.classList.toggle("busy", this.working(queue).length > 0);
  }

  #line(key, line) {
    const burst = this.active.get(key);
    line.classList.toggle("on", Boolean(burst));
    const text = burst ? burst.label : "–";
    write(line.lastChild, text);
    setStyle(line, "--on", burst ? this.palette.colour(burst.label) : "transparent");
    const element = burst && burst.count > 1
      ? Math.floor((this.view.cycle - burst.first) / burst.interval) + 1 : 0;
    setStyle(line, "--done", element ? `${(100 * element) / burst.count}%` : burst ? "100%" : "0%");
  }

  // --- streams -----------------------------------------------------------------------------------------------------

  // fraction: how far values have come on their way from the register of the cycle before.
  draw(fraction) {
    for (const dir of ["E", "W"]) this.#strip(dir, this.canvases[dir], still() ? 1 : fraction);
  }

  // Places of a strip: {x, y, cell} of a register's group.
  #geometry(dir, canvas) {
    const { lanes, planes, positions, groups } = this.header.config;
    const [width, height] = sizeOf(canvas), column = width / positions;
    const cell = Math.max(2, Math.min(Math.floor((column - 14) / lanes), 11));
    const small = Math.max(2, cell * 0.62);
    const tall = cell * planes, short = small * planes;
    const y = (group) => {
      const away = group === 0 ? 0 : tall + 20 + (group - 1) * (short + 12);
      return dir === "E" ? height - 16 - tall - away + (group ? tall - short : 0) : 16 + away;
    };
    return {
      column, y, groups, height: 32 + tall + (groups - 1) * (short + 12) + (groups > 1 ? 8 : 0),
      size: (group) => (group ? small : cell),
      x: (position, group) => (position + 0.5) * column - ((group ? small : cell) * lanes) / 2,
    };
  }

  #strip(dir, canvas, fraction) {
    const g = fitted(canvas);
    g.clearRect(0, 0, ...sizeOf(canvas));
    const place = this.#geometry(dir, canvas), { positions, groups, lanes, planes } = this.header.config;
    const from = dir === "E" ? -1 : 1;
    const paper = { font: themeFont() };
    for (const name of ["ink", "line", "dim", "zero", "plus", "minus"]) paper[name] = themeColour(name);
    for (let position = 0; position < positions; position++) {
      for (let group = 0; group < groups; group++) {
        if (!this.#exists(dir, position, group)) continue;
        const size = place.size(group), y = place.y(group);
        g.strokeStyle = paper.line;
        g.lineWidth = 1;
        g.strokeRect(place.x(position, group) - 1.5, y - 1.5, size * lanes + 3, size * planes + 3);
      }
    }
    if (!this.view) return;
    const ease = fraction * fraction * (3 - 2 * fraction);
    for (let position = 0; position < positions; position++) {
      for (let group = 0; group < groups; group++) {
        if (!this.#exists(dir, position, group)) continue;
        const driven = this.#driven(dir, position) >> (planes * group);
        if (!(driven & 15)) continue;
        const to = place.x(position, group), begin = place.x(position + from, group);
        const x = begin + (to - begin) * ease, y = place.y(group), size = place.size(group);
        this.#register(g, { dir, position, group, driven, x, y, size, paper });
      }
    }
  }

  // Whether a register is there: weight streams run outward of the memories only.
  #exists(dir, position, group) {
    const { vxm, positions } = this.header.config;
    if (dir === "E" ? position === 0 : position === positions - 1) return false;
    return group === 0 || (dir === "E" ? position > vxm + 1 : position < vxm - 1);
  }

  #register(g, { dir, position, group, driven, x, y, size, paper }) {
    const { lanes, planes } = this.header.config;
    const source = this.drivers.of(dir, group, position, this.view.cycle);
    const colours = shadesOf(paper);
    const hue = source ? this.palette.colour(source.burst.label) : paper.dim;
    for (let plane = 0; plane < planes; plane++) {
      if (!((driven >> plane) & 1)) continue;
      for (let lane = 0; lane < lanes; lane++) {
        g.fillStyle = colours[this.byte(dir, position, group, plane, lane)];
        g.fillRect(x + lane * size, y + plane * size, size - 0.6, size - 0.6);
      }
    }
    g.strokeStyle = hue;
    g.lineWidth = 2;
    g.strokeRect(x - 2, y - 2, size * lanes + 3.4, size * planes + 3.4);
    if (!this.labelled || !source || group) return;
    g.fillStyle = paper.ink;
    g.font = `10px ${paper.font}`;
    g.textAlign = "center";
    const text = source.burst.label, room = g.measureText(text).width;
    if (room < size * lanes + 30) g.fillText(text, x + (size * lanes) / 2, dir === "E" ? y - 6 : y + size * planes + 12);
  }

  #driven(dir, position) {
    const [at] = this.header.probes[`${dir.toLowerCase()}_driven_${position}`];
    return this.view.probes[at] | (this.view.probes[at + 1] << 8);
  }

  byte(dir, position, group, plane, lane) {
    const { lanes, planes } = this.header.config;
    const [at] = this.header.probes[`${dir.toLowerCase()}_${position}`];
    return this.view.probes[at + (group * planes + plane) * lanes + lane];
  }

  // What stands in a register: {source, driven, int32 lanes}.
  register(dir, position, group) {
    const { lanes, planes } = this.header.config;
    const driven = (this.#driven(dir, position) >> (planes * group)) & 15;
    const values = Array.from({ length: lanes }, (_, lane) => {
      let value = 0;
      for (let plane = 0; plane < planes; plane++) value |= this.byte(dir, position, group, plane, lane) << (8 * plane);
      return value | 0;
    });
    const bytes = Array.from({ length: planes }, (_, plane) =>
      Array.from({ length: lanes }, (_, lane) => (this.byte(dir, position, group, plane, lane) << 24) >> 24));
    return { driven, values, bytes, source: this.drivers.of(dir, group, position, this.view.cycle) };
  }

  #listen(dir, canvas) {
    canvas.addEventListener("pointermove", (event) => {
      const place = this.#geometry(dir, canvas), { lanes, planes, positions, groups } = this.header.config;
      for (let position = 0; position < positions && this.view; position++) {
        for (let group = 0; group < groups; group++) {
          if (!this.#exists(dir, position, group)) continue;
          const x = place.x(position, group), y = place.y(group), size = place.size(group);
          if (event.offsetX < x || event.offsetX > x + size * lanes || event.offsetY < y || event.offsetY > y + size * planes) continue;
          this.onHover({ register: this.register(dir, position, group), dir, position, group }, event);
          return;
        }
      }
      this.onHover(null, event);
    });
    canvas.addEventListener("pointerleave", (event) => this.onHover(null, event));
  }
}

// Bursts at work in a cycle. Those of an engine follow each other, so that each engine has at most one.
const byEngine = new WeakMap();

function workingAt(bursts, cycle) {
  if (!byEngine.has(bursts)) byEngine.set(bursts, [...engines(bursts).values()]);
  return byEngine.get(bursts).flatMap((list) => {
    let low = 0, high = list.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (list[middle].first <= cycle) low = middle + 1;
      else high = middle;
    }
    return low && list[low - 1].last >= cycle ? [list[low - 1]] : [];
  });
}

function engines(bursts) {
  const found = new Map();
  for (const burst of bursts) {
    const key = `${burst.queue} ${burst.engine}`;
    if (found.has(key)) found.get(key).push(burst);
    else found.set(key, [burst]);
  }
  return found;
}

// Colours of the 256 bytes: positive ones towards one colour, negative ones towards another, the stronger the greater.
const shades = new Map();

function shadesOf({ zero, plus, minus }) {
  const key = `${zero}${plus}${minus}`;
  if (!shades.has(key)) {
    const [none, more, less] = [zero, plus, minus].map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
    shades.set(key, Array.from({ length: 256 }, (_, byte) => {
      const value = byte > 127 ? byte - 256 : byte, goal = value > 0 ? more : less;
      const strength = value === 0 ? 0 : 0.2 + 0.8 * Math.min(Math.abs(value) / 100, 1);
      return `rgb(${none.map((part, n) => Math.round(part + (goal[n] - part) * strength)).join(",")})`;
    }));
  }
  return shades.get(key);
}

function splitTitle(title) {
  const parts = title.split(" ");
  return parts.length > 2 || /^[EW]\d/.test(parts.at(-1)) ? [parts.slice(0, -1).join(" "), parts.at(-1)] : [title, ""];
}

