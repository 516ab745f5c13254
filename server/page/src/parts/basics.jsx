// Small pieces that every page uses. All text from outside goes through Preact's text nodes and attributes; nothing is parsed as HTML.
import {useState} from 'preact/hooks';
import {formatPercent, number, seconds, formatSeconds} from '../lib/format.js';

const stateClass = {
  SUCCEEDED: 'good', FAILED: 'bad', CANCELLED: 'quiet', CANCELLING: 'fair', RUNNING: 'live', LEASED: 'live', QUEUED: 'quiet', PAUSED: 'fair',
  READY: 'quiet', BLOCKED: 'quiet', DRAINING: 'fair', LOST: 'bad', QUARANTINED: 'bad', WAITING: 'quiet',
};

export function State({state}) {
  const known = String(state ?? '').replace(/^STATE_UNSPECIFIED$/, 'UNKNOWN') || 'UNKNOWN';
  return <span class={`state state-${stateClass[known] ?? 'quiet'}`}>{known.toLowerCase()}</span>;
}

export function Card({title, children, wide, actions}) {
  return (
    <section class={wide ? 'card wide' : 'card'}>
      {title && <header class="card-head"><h2>{title}</h2>{actions}</header>}
      {children}
    </section>
  );
}

export function Figures({entries}) {
  return (
    <dl class="figures">
      {entries.filter(Boolean).map(({label, value, note}) => (
        <div key={label}><dt>{label}</dt><dd>{value}{note && <small> {note}</small>}</dd></div>
      ))}
    </dl>
  );
}

export function Progress({progress, state, stale}) {
  const part = number(progress?.fraction) ?? (state === 'SUCCEEDED' ? 1 : 0);
  const remaining = seconds(progress?.remaining);
  return (
    <div class={stale ? 'progress stale' : 'progress'}>
      <progress max="1" value={part} aria-label="progress" />
      <span class="progress-text">{formatPercent(part, 0)}{!stale && remaining !== null && ` · ${formatSeconds(remaining)} left`}</span>
    </div>
  );
}

export function Notice({kind = 'fair', children, live}) {
  return <div class={`notice notice-${kind}`} role={live ? 'status' : undefined}>{children}</div>;
}

/** A refusal of the server, with every field that it found wrong. */
export function Refusal({error}) {
  if (!error) return null;
  return (
    <Notice kind="bad" live>
      <p>{error.message}{error.reason && <code class="reason"> [{error.reason}]</code>}</p>
      {error.violations?.length > 0 && <ul>{error.violations.map((violation) => (
        <li key={violation.field}><code>{violation.field}</code>: {violation.description}</li>))}</ul>}
    </Notice>
  );
}

/** Text that is copied with a button. */
export function Copyable({text, label}) {
  const [done, setDone] = useState('');
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setDone('copied');
    } catch {
      setDone('select the text and copy it');  // pages without TLS and files have no clipboard
    }
    setTimeout(() => setDone(''), 3000);
  };
  return (
    <div class="copyable">
      <pre tabIndex={0} role="region" aria-label={label}>{text}</pre>
      <div class="row"><button type="button" onClick={copy}>Copy</button><span role="status">{done}</span></div>
    </div>
  );
}

/**
 * A table whose columns sort. `columns`: {key, title, text: (row) => node, value: (row) => what it sorts by, left}. Rows beyond
 * `first` show on demand.
 */
export function Table({columns, rows, rowKey, label, first = 0, sort: initial}) {
  const [sort, setSort] = useState(initial ?? {key: '', down: false});
  const [all, setAll] = useState(false);
  const column = columns.find((one) => one.key === sort.key);
  const sorted = column?.value ? [...rows].sort((a, b) => {
    const x = column.value(a), y = column.value(b);
    if (x === null || x === undefined) return 1;
    if (y === null || y === undefined) return -1;
    return (x < y ? -1 : x > y ? 1 : 0) * (sort.down ? -1 : 1);
  }) : rows;
  const shown = first > 0 && !all ? sorted.slice(0, first) : sorted;
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label={label}>
        <table>
          <thead><tr>{columns.map((one) => (
            <th key={one.key} scope="col" class={one.left ? 'left' : undefined}
                aria-sort={sort.key === one.key ? (sort.down ? 'descending' : 'ascending') : undefined}>
              {one.value ? <button type="button" class="sort" onClick={() => setSort({key: one.key, down: sort.key === one.key ? !sort.down : !one.left})}>
                {one.title}<span aria-hidden="true">{sort.key === one.key ? (sort.down ? ' ↓' : ' ↑') : ''}</span></button> : one.title}
            </th>))}</tr></thead>
          <tbody>{shown.map((row, index) => (
            <tr key={rowKey(row, index)}>{columns.map((one) => (
              <td key={one.key} class={one.left ? 'left' : undefined}>{one.text(row)}</td>))}</tr>))}</tbody>
        </table>
      </div>
      {first > 0 && rows.length > first && (
        <button type="button" class="more" onClick={() => setAll(!all)}>{all ? `Show the first ${first}` : `Show all ${rows.length}`}</button>)}
    </>
  );
}
