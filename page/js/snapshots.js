// Snapshots of a chip: its linear memory, of which only the pages that differ from the first snapshot are kept.

const PAGE = 1024; // bytes

export class Snapshots {
  constructor(memory) {
    this.memory = memory;
    this.base = new Uint8Array(memory.buffer).slice();
    this.taken = []; // {key, state, pages: Map of page number to bytes}, keys rising
  }

  // key: a number that rises with time. state: whatever belongs to it beside the memory.
  take(key, state) {
    if (this.taken.some((one) => one.key === key)) return;
    const now = new Uint8Array(this.memory.buffer);
    const words = new BigUint64Array(this.memory.buffer), base = new BigUint64Array(this.base.buffer);
    const pages = new Map();
    for (let page = 0; page * PAGE < now.length; page++) {
      if (differs(words, base, (page * PAGE) / 8)) pages.set(page, now.slice(page * PAGE, (page + 1) * PAGE));
    }
    this.taken.push({ key, state, pages });
    this.taken.sort((a, b) => a.key - b.key);
  }

  // Forgets all snapshots behind a key.
  forget(key) {
    this.taken = this.taken.filter((one) => one.key <= key);
  }

  // The last snapshot at or before a key.
  before(key) {
    return this.taken.findLast((one) => one.key <= key);
  }

  restore(snapshot) {
    const now = new Uint8Array(this.memory.buffer);
    now.set(this.base);
    now.fill(0, this.base.length);
    for (const [page, bytes] of snapshot.pages) now.set(bytes, page * PAGE);
    return snapshot.state;
  }
}

function differs(words, base, first) {
  for (let n = first; n < first + PAGE / 8; n++) if (words[n] !== base[n]) return true;
  return false;
}
