// Byte-pair encoding of a Hugging Face tokenizer.json, as page/tokenizer.py prepares it: added tokens, normalizers,
// pre-tokenizers, merges. Patterns come translated, so that they match what the library's match.

import { utf8Bytes, utf8Text } from "./payload.js";

const LONE = /[\ud800-\udfff]/gu; // half of a character
const SPACES_AFTER = /^[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*/u;
const SPACES_BEFORE = /[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]*$/u;

export class BpeTokenizer {
  // image: the JSON of page/tokenizer.py.
  constructor(image) {
    const spec = JSON.parse(utf8Text(image));
    this.bos = spec.bos;
    this.stops = spec.stops; // tokens that end a text
    this.addsBos = spec.adds_bos;
    this.normalizers = spec.normalizers;
    this.preTokenizers = spec.pre_tokenizers;
    this.model = spec.model;
    this.first = new Map(spec.first); // pieces that differ at the beginning of a text
    this.pieces = spec.pieces; // bytes of each token, as a binary string
    this.raw = new AddedTokens(spec.added.filter((token) => !token.normalized));
    this.normalized = new AddedTokens(spec.added.filter((token) => token.normalized));
    this.vocab = new Map(spec.model.vocab.flatMap((text, token) => (text === null ? [] : [[text, token]])));
    this.merges = new Map(spec.model.merges.map(([left, right, token], rank) => [pairKey(left, right), { rank, token }]));
    this.bytes = Array.from({ length: 256 }, (_, byte) =>
      this.vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
  }

  // Token ids, BOS first where the tokenizer adds it; BOS alone for an empty text.
  encode(text) {
    const ids = this.addsBos ? [this.bos] : [];
    for (const part of this.raw.split(text.replace(LONE, "\ufffd"))) {
      if (part.token !== undefined) ids.push(part.token);
      else this.#encodePart(part, ids);
    }
    return ids.length ? ids : [this.bos];
  }

  // The bytes that a token adds after another one; after BOS or null it begins the text.
  piece(previous, token) {
    const begins = previous === null || previous === this.bos;
    const piece = (begins ? this.first.get(token) : undefined) ?? this.pieces[token] ?? "";
    return Uint8Array.from(piece, (char) => char.charCodeAt(0));
  }

  #encodePart(part, ids) {
    const normalized = this.normalizers.reduce((text, step) => NORMALIZERS[step.type](text, step), part.text);
    for (const inner of this.normalized.split(normalized)) {
      if (inner.token !== undefined) {
        ids.push(inner.token);
        continue;
      }
      let words = [{ text: inner.text, starts: part.starts && inner.starts }];
      for (const step of this.preTokenizers) {
        words = words.flatMap((word) => PRE_TOKENIZERS[step.type](word, step)).filter((word) => word.text);
      }
      for (const word of words) if (word.text) this.#encodeWord(word.text, ids);
    }
  }

  #encodeWord(word, ids) {
    const whole = this.model.ignore_merges ? this.vocab.get(word) : undefined;
    if (whole !== undefined) ids.push(whole);
    else for (const id of mergePairs(this.#symbols(word), this.merges)) ids.push(id);
  }

  // A token a character; bytes, or the unknown token, where there is none. The unknown token waits behind bytes, as in
  // the library.
  #symbols(word) {
    const { unk, fuse_unk: fuses, byte_fallback: falls } = this.model, found = [];
    let unknown = false;
    for (const char of word) {
      const token = this.vocab.get(char);
      if (token !== undefined) {
        if (unknown) found.push(unk);
        unknown = false;
        found.push(token);
        continue;
      }
      const bytes = falls ? utf8Bytes(char).map((byte) => this.bytes[byte]) : [undefined];
      if (!bytes.includes(undefined)) found.push(...bytes);
      else if (unk !== null) {
        if (unknown && !fuses) found.push(unk);
        unknown = true;
      }
    }
    if (unknown) found.push(unk);
    return found;
  }
}

// Tokens that are split off before anything else: the leftmost first, of those the longest.
class AddedTokens {
  constructor(tokens) {
    const longest = [...tokens].sort((a, b) => b.text.length - a.text.length);
    this.byText = new Map(tokens.map((token) => [token.text, token]));
    const literal = (token) => token.text.replace(/[\\^$.*+?()[\]{}|\/]/g, (char) => `\\${char}`);
    this.pattern = tokens.length ? new RegExp(longest.map(literal).join("|"), "gu") : null;
  }

  // Tokens, and the texts between them. starts: of a text that begins where the whole one does.
  split(text) {
    const parts = [];
    let from = 0;
    for (const match of this.pattern ? text.matchAll(this.pattern) : []) {
      const added = this.byText.get(match[0]);
      let start = match.index, stop = start + match[0].length;
      if (added.lstrip) start = Math.max(start - SPACES_BEFORE.exec(text.slice(0, start))[0].length, from);
      if (added.rstrip) stop += SPACES_AFTER.exec(text.slice(stop))[0].length;
      if (from < start) parts.push({ text: text.slice(from, start), starts: from === 0 });
      parts.push({ token: added.id });
      from = stop;
    }
    if (from < text.length) parts.push({ text: text.slice(from), starts: from === 0 });
    return parts;
  }
}

const NORMALIZERS = {
  Prepend: (text, { prepend }) => (text ? prepend + text : text),
  Replace: (text, { pattern, content }) => text.replace(compiled(pattern), () => content),
  Unicode: (text, { form }) => text.normalize(form),
  Lowercase: (text) => Array.from(text, (char) => char.toLowerCase()).join(""),
};

const PRE_TOKENIZERS = {
  Split: (word, { pattern, behavior, invert }) => splitWord(word, pattern, behavior, invert),
  Metaspace(word, { replacement, scheme, split }) {
    let text = word.text.replaceAll(" ", replacement);
    const wanted = scheme === "always" || (scheme === "first" && word.starts);
    if (wanted && !text.startsWith(replacement)) text = replacement + text;
    const whole = { text, starts: word.starts };
    return split ? splitWord(whole, literalPattern(replacement), "MergedWithNext", false) : [whole];
  },
  Prefix: (word) => [word.text.startsWith(" ") ? word : { ...word, text: " " + word.text }],
  Bytes: (word) => [{ ...word, text: utf8Bytes(word.text).map((byte) => BYTE_CHARS[byte]).join("") }],
};

const patterns = new Map();

function compiled(source) {
  if (!patterns.has(source)) patterns.set(source, new RegExp(source, "gu"));
  return patterns.get(source);
}

function literalPattern(char) {
  return `\\u{${char.codePointAt(0).toString(16)}}`;
}

// Splits a word where a pattern matches; `behavior` says what becomes of the matches.
function splitWord({ text, starts }, pattern, behavior, invert) {
  const spans = [];
  let from = 0;
  for (const match of text.matchAll(compiled(pattern))) {
    if (from < match.index) spans.push([from, match.index, invert]);
    from = match.index + match[0].length;
    spans.push([match.index, from, !invert]);
  }
  if (from < text.length) spans.push([from, text.length, invert]);
  return BEHAVIORS[behavior](spans).map(([start, end]) =>
    ({ text: text.slice(start, end), starts: starts && start === 0 }));
}

const BEHAVIORS = {
  Removed: (spans) => spans.filter(([, , matched]) => !matched),
  Isolated: (spans) => spans,
  Contiguous: (spans) => joinSpans(spans, (matched, before) => matched === before),
  MergedWithPrevious: (spans) => joinSpans(spans, (matched, before) => matched && !before),
  MergedWithNext(spans) {
    const back = spans.map(([start, end, matched]) => [-end, -start, matched]).reverse();
    return joinSpans(back, (matched, before) => matched && !before)
      .map(([start, end, matched]) => [-end, -start, matched]).reverse();
  },
};

function joinSpans(spans, joins) {
  const found = [];
  let before = null;
  for (const [start, end, matched] of spans) {
    if (found.length && joins(matched, before)) found.at(-1)[1] = end;
    else found.push([start, end, matched]);
    before = matched;
  }
  return found;
}

// GPT-2's character for each byte: printable Latin-1 is itself, and the others count from U+0100 on.
const BYTE_CHARS = byteChars();

function byteChars() {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : 0x100 + others++);
  });
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
