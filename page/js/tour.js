// The guided tour: ten stops, along the way of one vector from SRAM to the next word of the story.

import { $, number } from "./dom.js";

// Each stop: title, text(header, token), at: the burst to go to {label, op, most?: the longest one, last?}, ahead: cycles
// before it to stop at, play: cycles to play from there, speed: cycles a second, units: cards to frame, zoom: cycles of
// the chart (whole: all), look: "chart" if that is what the text speaks of.
export const STOPS = [
  {
    title: "A chip that is a row",
    text: (h) => `Seven places in a row, mirrored about the vector unit: matrix units at both ends, memories in between. There is no
      cache, no bus and no processor that gives orders. Each unit has its own list of instructions, and each instruction says in
      which cycle the next one begins. The boxes between the units are <b>stream registers</b>: whatever is put on a stream moves one
      place a cycle, eastward above, westward below. This chip has ${h.config.lanes} lanes, so a vector is ${h.config.lanes} numbers.`,
    at: { start: true }, units: [], zoom: 120,
  },
  {
    title: "It begins with a number",
    text: () => `The last word of the story is in the memory as a number, its token id. One of the first instructions reads it:
      the memory's read engine fetches a row of SRAM, two cycles later the value stands on a westward stream, one cycle after that
      the vector unit takes it. From it the unit computes <b>where the word's vector lies</b>. Nobody asked whether the value had
      arrived. The compiler has counted.`,
    at: { label: "token", op: "READ" }, play: 4, units: ["MEM_E0", "VXM"], zoom: 60,
  },
  {
    title: "From SRAM onto a stream",
    text: (h) => `Here is our vector: ${h.model.dim} numbers that stand for the word, a byte each. The memories read it row by row,
      ${h.config.lanes} lanes at a time, and each row sets off toward the vector unit. Blue cells are positive, orange ones negative. A stream is
      four bytes wide; our word fills one of them, and the rest stays 0. Watch the frames slide, and keep the colour of the
      operation that they belong to. The vector unit scales the rows and keeps them in its registers. This is the
      <b>residual</b>; it will stay there through all ${h.model.layers} layers.`,
    at: { label: "embedding", op: "READ", most: true }, play: 14, speed: 4, units: ["MEM_W1", "MEM_E1", "VXM"], zoom: 60,
  },
  {
    title: "A norm: square, add up, look up",
    text: (h) => `Before a matrix sees the vector, it is brought to one length. The vector unit squares every number and adds the
      squares up as they pass. The sum of all lanes is found by ${h.row.includes("SXM_W") ? "a" : "the"} <b>lane switch</b>, the only place
      where lanes meet. It sends the sum back, and the vector unit reads one ÷ √ from a table. Then it multiplies the vector by it.`,
    at: { label: "attention norm", op: "ALU" }, play: 24, speed: 8, units: ["VXM", "SXM_E"], zoom: 90,
  },
  {
    title: "The matrix units hold the vector",
    text: () => `The normed vector leaves the vector unit in both directions, as bytes. Both matrix units take it from the stream and
      <b>hold</b> it, in a small buffer beside their multipliers. Usually it is the other way round: a matrix unit holds weights,
      and data streams past. A chip that makes one word at a time uses each weight once, so the weights are what must stream.`,
    at: { label: "attention norm", op: "LOAD" }, ahead: 6, play: 12, speed: 4, units: ["MXM_W", "MXM_E", "VXM"], zoom: 60,
  },
  {
    title: "Weights stream past",
    text: (h) => `Now the memories next to each matrix unit read weights, a row in every cycle, on streams of their own. Each of the
      ${h.config.macs} multipliers meets <b>a new weight in every cycle</b>, straight out of SRAM. This is the limit of the
      machine: ${h.config.macs} bytes of weights a cycle. All that the schedule below tries to do is to let no cycle pass in which the matrix
      units wait. This product makes queries, keys and values.`,
    at: { label: "qkv product", op: "MAC" }, ahead: 3, play: 20, speed: 4, units: ["MXM_W", "MXM_E", "MEM_W1", "MEM_W2", "MEM_E1", "MEM_E2"], zoom: 80,
  },
  {
    title: "Sums come back",
    text: () => `What the multipliers added up lies in accumulators of 32 bits. A <b>drain</b> puts them on the streams that run
      inward, and the vector unit scales them back to the size of our numbers. In the chart below, look at the
      bands: each leaves a unit and crosses the chip slantwise, a place a cycle. A band that ends where a bar begins is a value
      that arrives in the very cycle in which it is wanted.`,
    at: { label: "q rotate", op: "DRAIN" }, ahead: 2, play: 12, speed: 4, units: ["MXM_W", "MXM_E", "VXM"], zoom: 60, look: "chart",
  },
  {
    title: "Attention: the story so far as a matrix",
    text: () => `The keys of all earlier words are kept in SRAM. To the chip they are <b>weights</b> like any others: the query is
      loaded, the keys stream past, and out come scores. The lane switch finds the greatest, and the vector unit takes powers of two
      of how far the others lie below it; that is the softmax. The values follow in the same way. What the story says next
      depends on this.`,
    at: { label: "score", op: "MAC" }, ahead: 3, play: 90, speed: 15, units: ["MXM_W", "MXM_E", "VXM", "SXM_E"], zoom: 160,
  },
  {
    title: "The same again, layer by layer",
    text: (h) => `A projection, a norm, and a feed-forward network of ${h.model.hidden} hidden numbers, whose three matrices are most of the
      weights. Then the next layer begins: the queues loop over the same instructions, and only the addresses move on. All
      ${h.model.layers} turns of the loop take exactly as long. In the bar above the chart you see them side by side; a token is nothing else.`,
    at: { label: "w13 product", op: "MAC" }, ahead: 3, play: 120, speed: 30, units: ["MXM_W", "MXM_E"], whole: true, look: "chart",
  },
  {
    title: "The next word",
    text: (h, { period, word }) => `After the last layer the classifier gives one number for each of ${h.model.vocab} tokens. The vector
      unit adds noise to them, times the temperature, and the greatest wins. Its number is written to SRAM, where the next round
      finds it. The token takes ${number(period)} cycles, as was <b>known before it began</b>. ${word ? `The next piece of the story is “<b>${word}</b>”.` : ""}`,
    at: { label: "sample", op: "WRITE", last: true }, ahead: 8, playToEnd: true, speed: 60, units: ["VXM", "MEM_E0", "MEM_W0"], zoom: 400,
  },
];

export class Tour {
  // go(position, cycle), play(position, cycle, speed): move the chip. frame(units, look), zoom(from, to): point things
  // out. bursts(position), token(position): what is known of a token. position(): which one to show.
  constructor({ header, bursts, token, go, play, frame, zoom, position }) {
    Object.assign(this, { header, bursts, token, go, play, frame, zoom, position });
    this.stop = -1;
    $("tour-next").addEventListener("click", () => this.show(this.stop + 1));
    $("tour-back").addEventListener("click", () => this.show(this.stop - 1));
    $("tour-again").addEventListener("click", () => this.show(this.stop));
    $("tour-close").addEventListener("click", () => this.close());
    $("tour-dots").replaceChildren(...STOPS.map((stop, n) => {
      const dot = document.createElement("button");
      dot.type = "button";
      dot.title = `${n + 1}. ${stop.title}`;
      dot.setAttribute("aria-label", dot.title);
      dot.addEventListener("click", () => this.show(n));
      return dot;
    }));
  }

  get open() {
    return this.stop >= 0;
  }

  async show(number) {
    if (number >= STOPS.length) return this.close();
    if (number < 0) return;
    if (!this.open) this.at = this.position();
    this.stop = number;
    const stop = STOPS[number];
    $("tour").hidden = false;
    document.body.classList.add("touring");
    $("tour-count").textContent = `${number + 1} of ${STOPS.length}`;
    $("tour-title").textContent = stop.title;
    $("tour-text").innerHTML = stop.text(this.header, this.token(this.at));
    $("tour-back").disabled = number === 0;
    $("tour-next").textContent = number + 1 === STOPS.length ? "Done" : "Next";
    [...$("tour-dots").children].forEach((dot, n) => dot.setAttribute("aria-current", n === number ? "step" : "false"));
    const [first, until] = this.#cycles(stop), mine = (this.turn = (this.turn ?? 0) + 1);
    await this.go(this.at, first);
    if (mine !== this.turn) return;
    const span = stop.zoom ?? 100;
    if (stop.whole) this.zoom(0, Infinity);
    else this.zoom(first - span * 0.25, first + span * 0.75);
    if (until > first) await this.play(this.at, until, stop.speed ?? 2);
  }

  // Where a stop begins and how far it plays; `target` becomes the cycle in which what it speaks of begins.
  #cycles(stop) {
    const list = this.bursts(this.at), { at } = stop;
    this.target = 0;
    this.frame(stop.units, stop.look);
    if (at.start) return [0, 0];
    const own = list.filter((burst) => burst.label === at.label && burst.op === at.op && burst.turn === 0);
    if (!own.length) return [0, 0];
    const burst = at.last ? own.at(-1) : at.most ? own.reduce((a, b) => (b.count > a.count ? b : a)) : own[0];
    const first = Math.max(burst.first - (stop.ahead ?? 1), 0);
    this.target = burst.first;
    this.frame([...stop.units, burst.queue], stop.look);
    return [first, stop.playToEnd ? Infinity : first + (stop.play ?? 0)];
  }

  close() {
    this.stop = -1;
    this.turn = (this.turn ?? 0) + 1;
    $("tour").hidden = true;
    document.body.classList.remove("touring");
    this.frame([]);
  }
}
