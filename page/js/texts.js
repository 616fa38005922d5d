// What becomes of a text before a tokenizer.json's model sees its words: normalizers, then pre-tokenizers. Patterns come
// translated by page/patterns.py, so that they match what the library's match.

import { utf8Bytes } from "./payload.js";

// A text after a normalizer's step.
export function normalized(text, step) {
  return NORMALIZERS[step.type](text, step);
}

// The words of a word {text, starts: whether it begins the whole text} after a pre-tokenizer's step.
export function splitAgain(word, step) {
  return PRE_TOKENIZERS[step.type](word, step).filter((part) => part.text);
}

const graphemes = globalThis.Intl?.Segmenter ? new Intl.Segmenter("en", { granularity: "grapheme" }) : null;
const MOST_BYTES = 5; // of a grapheme that SentencePiece's table replaces as a whole

const NORMALIZERS = {
  Prepend: (text, { prepend }) => (text ? prepend + text : text),
  Replace: (text, { pattern, content }) => text.replace(compiled(pattern), () => content),
  Unicode: (text, { form }) => text.normalize(form),
  Spaced: (text, { pattern }) => text.replace(compiled(pattern), (match) => ` ${match} `),
  Precompiled(text, { table }) {
    if (!graphemes) throw new Error("this browser is too old for this vocabulary: it has no Intl.Segmenter");
    return Array.from(graphemes.segment(text), ({ segment: unit }) => {
      const whole = utf8Bytes(unit).length <= MOST_BYTES ? replacement(unit, table) : undefined;
      return whole ?? Array.from(unit, (char) => replacement(char, table) ?? char).join("");
    }).join("");
  },
  Lowercase: (text) => Array.from(text, (char) => char.toLowerCase()).join(""),
};

const PRE_TOKENIZERS = {
  Split: (word, { pattern, behavior, invert }) => splitWord(word, pattern, behavior, invert),
  Metaspace(word, { replacement: mark, scheme, split }) {
    let text = word.text.replaceAll(" ", mark);
    const wanted = scheme === "always" || (scheme === "first" && word.starts);
    if (wanted && !text.startsWith(mark)) text = mark + text;
    const whole = { text, starts: word.starts };
    return split ? splitWord(whole, literalPattern(mark), "MergedWithNext", false) : [whole];
  },
  Prefix: (word) => [word.text.startsWith(" ") ? word : { ...word, text: " " + word.text }],
  Bytes: (word) => [{ ...word, text: utf8Bytes(word.text).map((byte) => BYTE_CHARS[byte]).join("") }],
};

// What the shortest beginning of a text that SentencePiece's table knows becomes, instead of the whole text.
function replacement(text, table) {
  let begin = "";
  for (const char of text) {
    begin += char;
    if (Object.hasOwn(table, begin)) return table[begin];
  }
  return undefined;
}

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
