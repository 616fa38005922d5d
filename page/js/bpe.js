// Byte-pair encoding of a word: a token a character, then merges.

import { utf8Bytes } from "./payload.js";

export class BpeModel {
  // vocab: texts by id, or null. merges: [left, right, merged] ids, the first one the earliest. unk: the id of the unknown
  // token, or null. prefix, suffix: of characters that go on with a word, and of its last one.
  constructor({ vocab, merges, unk, fuse_unk, byte_fallback, ignore_merges, prefix, suffix }) {
    Object.assign(this, { unk, fuses: fuse_unk, falls: byte_fallback, whole: ignore_merges, prefix, suffix });
    this.vocab = idsOf(vocab);
    this.merges = new Map(merges.map(([left, right, token], rank) => [pairKey(left, right), { rank, token }]));
    this.bytes = byteTokens(this.vocab);
  }

  tokens(word) {
    const whole = this.whole ? this.vocab.get(word) : undefined;
    return whole === undefined ? mergePairs(this.#symbols(word), this.merges) : [whole];
  }

  // A token a character; bytes, or the unknown token, where there is none. The unknown token waits behind bytes, as in
  // the library.
  #symbols(word) {
    const found = [], chars = Array.from(word);
    let unknown = false;
    chars.forEach((char, n) => {
      const text = (n ? this.prefix : "") + char + (n + 1 === chars.length ? this.suffix : "");
      const token = this.vocab.get(text);
      if (token !== undefined) {
        if (unknown) found.push(this.unk);
        unknown = false;
        found.push(token);
        return;
      }
      const bytes = this.falls ? utf8Bytes(text).map((byte) => this.bytes[byte]) : [undefined];
      if (!bytes.includes(undefined)) found.push(...bytes);
      else if (this.unk !== null) {
        if (unknown && !this.fuses) found.push(this.unk);
        unknown = true;
      }
    });
    if (unknown) found.push(this.unk);
    return found;
  }
}

// Ids by text, of texts by id.
export function idsOf(vocab) {
  return new Map(vocab.flatMap((text, token) => (text === null ? [] : [[text, token]])));
}

// The token <0xXX> of each byte, or undefined.
export function byteTokens(ids) {
  return Array.from({ length: 256 }, (_, byte) => ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
}

function pairKey(left, right) {
  return left * 2 ** 26 + right;
}

// Merges pairs of tokens, that of the lowest rank first, the leftmost of equals.
function mergePairs(ids, merges) {
  const next = ids.map((_, n) => n + 1), before = ids.map((_, n) => n - 1), queue = new MergeQueue();
  const offer = (at) => {
    const merge = at >= 0 && next[at] < ids.length ? merges.get(pairKey(ids[at], ids[next[at]])) : undefined;
    if (merge) queue.push({ rank: merge.rank, at, token: merge.token });
  };
  ids.forEach((_, at) => offer(at));
  for (let top = queue.pop(); top; top = queue.pop()) {
    const { at, token } = top, right = next[at];
    if (ids[at] === null || right >= ids.length) continue;
    if (merges.get(pairKey(ids[at], ids[right]))?.token !== token) continue; // an entry that has expired
    ids[at] = token;
    ids[right] = null;
    next[at] = next[right];
    if (next[at] < ids.length) before[next[at]] = at;
    offer(before[at]);
    offer(at);
  }
  return ids.filter((id) => id !== null);
}

// A binary heap of merges.
class MergeQueue {
  constructor() {
    this.heap = [];
  }

  push(entry) {
    const { heap } = this;
    let at = heap.push(entry) - 1;
    for (let up = (at - 1) >> 1; at > 0 && earlier(heap[at], heap[up]); at = up, up = (at - 1) >> 1) {
      [heap[at], heap[up]] = [heap[up], heap[at]];
    }
  }

  pop() {
    const { heap } = this, top = heap[0], last = heap.pop();
    if (!heap.length) return top;
    heap[0] = last;
    for (let at = 0; ;) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < heap.length && earlier(heap[child], heap[least])) least = child;
      }
      if (least === at) return top;
      [heap[at], heap[least]] = [heap[least], heap[at]];
      at = least;
    }
  }
}

function earlier(a, b) {
  return a.rank < b.rank || (a.rank === b.rank && a.at < b.at);
}
