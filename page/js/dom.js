// Small helpers around the document.

export const $ = (id) => document.getElementById(id);

// An element: make("p", {className: "note"}, "text", child, ..).
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Sets an element's text, and leaves it alone if it has that text, so that nothing is laid out again.
export function write(element, text) {
  if (element.textContent !== String(text)) element.textContent = text;
}

const formats = [0, 1].map((digits) => new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));

// digits: 0 or 1 behind the point.
export function number(value, digits = 0) {
  return formats[digits].format(value);
}

// Sets a custom property of an element, unless it has that value.
export function setStyle(element, name, value) {
  element.known ??= {};
  if (element.known[name] === value) return;
  element.known[name] = value;
  element.style.setProperty(name, value);
}

const reduced = matchMedia("(prefers-reduced-motion: reduce)");

export const still = () => reduced.matches;
