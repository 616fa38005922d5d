// The rows of a schedule's picture, west to east, and the colours of what works in them.

const ORDER = ["load", "mac", "drain", "read", "write", "index", "alu", "sxm", "lanes", "in", "out", "send", "receive"];

// A row an engine that works at all: {queue, unit, position, engine, title, name}.
export function rowsOf(header, list) {
  const used = new Set(list.map((burst) => `${burst.queue} ${burst.engine}`));
  return header.row.flatMap((name) => {
    const queue = header.queues.find((one) => one.name === name);
    return ORDER.filter((engine) => used.has(`${name} ${engine}`)).map((engine) => ({
      queue: name, unit: queue.unit, position: queue.position, engine, title: queue.title,
      name: header.engine_names[engine] ?? engine,
    }));
  });
}

// What belongs to a family of operations.
export class Palette {
  constructor(header) {
    this.families = header.families.map(([name, colour, labels]) => ({ name, colour, labels }));
    this.other = this.families.at(-1);
    this.known = new Map(this.families.flatMap((family) => family.labels.map((label) => [label, family])));
  }

  family(label) {
    return this.known.get(label) ?? this.other;
  }

  colour(label) {
    return this.family(label).colour;
  }

  // Black or white, whichever reads better on a colour.
  ink(label) {
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(this.colour(label).slice(at, at + 2), 16));
    return 0.3 * red + 0.59 * green + 0.11 * blue > 140 ? "#10151c" : "#ffffff";
  }
}
