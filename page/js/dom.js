// Small helpers around the document.

export const $ = (id) => document.getElementById(id);

// An element: make("p", {className: "note"}, "text", child, ..).
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function number(value, digits = 0) {
  return value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
