// Light or dark: the system's wish, or the user's. Charts are drawn in colours of the style sheet, so they ask here.
import {observable} from './state.js';

const key = 'uniquanf-theme';
const system = matchMedia('(prefers-color-scheme: dark)');

function stored() {
  try { return localStorage.getItem(key) ?? 'auto'; } catch { return 'auto'; }  // a file's page may have no storage
}

/** "auto", "light" or "dark": what the user wishes. */
export const wish = observable(stored());
/** Grows with every change of the colours in force. */
export const palette = observable(0);

function apply() {
  const root = document.documentElement;
  if (wish.get() === 'auto') delete root.dataset.theme; else root.dataset.theme = wish.get();
  palette.set(palette.get() + 1);
}

export function setWish(next) {
  wish.set(next);
  try { localStorage.setItem(key, next); } catch { /* it holds for this page */ }
  apply();
}

export function startTheme() {
  system.addEventListener('change', apply);
  apply();
}

/** A colour of the style sheet: colour('line'). */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function channels(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/** The colour at `part` (0..1) of the scale from the first layer to the last. */
export function rampColour(part) {
  const stops = ['ramp-0', 'ramp-1', 'ramp-2'].map((name) => channels(colour(name)));
  const at = Math.min(Math.max(part, 0), 1) * (stops.length - 1);
  const index = Math.min(Math.floor(at), stops.length - 2), mix = at - index;
  const mixed = stops[index].map((low, channel) => Math.round(low + mix * (stops[index + 1][channel] - low)));
  return `rgb(${mixed.join(' ')})`;
}
