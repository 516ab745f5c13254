// Numbers, sizes and times for people. Everything takes what protobuf's JSON writes: 64-bit integers and durations are strings,
// doubles may be "NaN" or "Infinity", and what is unset is missing.

/** A finite number, or null. */
export function number(value) {
  if (value === null || value === undefined || value === '' || typeof value === 'boolean') return null;
  const parsed = Number(value);
  return Number.isFinite(parsed) ? parsed : null;
}

/** Seconds of a duration "19.279s" or of a number; null where there is none. */
export function seconds(value) {
  return number(typeof value === 'string' ? value.replace(/s$/, '') : value);
}

/** Milliseconds since 1970 of a timestamp; null where there is none. */
export function time(value) {
  const parsed = value ? Date.parse(value) : NaN;
  return Number.isNaN(parsed) ? null : parsed;
}

export const dash = '–';

export function formatNumber(value, digits = 4) {
  const plain = number(value);
  if (plain === null) return dash;
  if (plain === 0) return '0';
  const size = Math.abs(plain);
  if (size >= 0.01 && size < 1e5) return String(Number(plain.toPrecision(digits)));
  return plain.toExponential(2).replace('e+', 'e');
}

export function formatInteger(value) {
  const plain = number(value);
  return plain === null ? dash : Math.round(plain).toLocaleString('en-US');
}

export function formatBytes(value) {
  const plain = number(value);
  if (plain === null) return dash;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let size = plain, unit = 0;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; ++unit; }
  return `${unit === 0 ? size : size.toFixed(size < 10 ? 2 : size < 100 ? 1 : 0)} ${units[unit]}`;
}

export function formatPercent(part, digits = 1) {
  const plain = number(part);
  return plain === null ? dash : `${(100 * plain).toFixed(digits)}%`;
}

/** "+13.5%"; "–" where one is unknown. */
export function formatChange(before, after) {
  const a = number(before), b = number(after);
  if (a === null || b === null || a === 0) return dash;
  const change = b / a - 1;
  const text = Math.abs(change) >= 10 ? `${(b / a).toPrecision(3)} times` : `${change < 0 ? '−' : '+'}${(100 * Math.abs(change)).toFixed(1)}%`;
  return text;
}

export function formatSeconds(value) {
  const total = seconds(value);
  if (total === null) return dash;
  if (total < 1) return total === 0 ? '0 s' : `${Math.round(total * 1000)} ms`;
  if (total < 60) return `${total < 10 && !Number.isInteger(total) ? total.toFixed(1) : Math.round(total)} s`;
  const whole = Math.round(total);
  const days = Math.floor(whole / 86400), hours = Math.floor(whole / 3600) % 24, minutes = Math.floor(whole / 60) % 60;
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return `${minutes} min ${whole % 60} s`;
}

export function formatTime(value) {
  const at = time(value);
  if (at === null) return dash;
  const date = new Date(at);
  const two = (part) => String(part).padStart(2, '0');
  return `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function formatAgo(value, now = Date.now()) {
  const at = time(value);
  return at === null ? dash : `${formatSeconds(Math.max(0, Math.round((now - at) / 1000)))} ago`;
}

/** Last part of a resource name or URI. */
export function lastPart(name) {
  return String(name ?? '').replace(/\/+$/, '').split('/').pop();
}
