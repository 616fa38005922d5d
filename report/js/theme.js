// The colours of the theme, light or dark, as the style sheet names them. They are read once and after each change: to
// ask for a style makes the browser work out all styles at once.

const FALLBACK = { ink: "#1c2430", dim: "#5a6474", line: "#dde2ea", paper: "#ffffff", stripe: "#f4f6f9" };
let known = new Map();
const onChange = new Set();

// The colour --NAME.
export function themeColour(name) {
  if (!known.has(name)) {
    const found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    known.set(name, found || FALLBACK[name]);
  }
  return known.get(name);
}

// The font of the page.
export function themeFont() {
  if (!known.has("font")) known.set("font", getComputedStyle(document.body).fontFamily || "system-ui, sans-serif");
  return known.get("font");
}

// Calls `action` whenever the theme has changed: what was drawn is to be drawn again.
export function onTheme(action) {
  onChange.add(action);
}

function changed() {
  known = new Map();
  for (const action of onChange) action();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
new MutationObserver(changed).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
