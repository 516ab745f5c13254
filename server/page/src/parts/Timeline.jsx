// When which worker did what: a row for each worker.
import {useEffect, useRef, useState} from 'preact/hooks';
import {formatSeconds} from '../lib/format.js';
import {timelineOf} from '../lib/model.js';
import {useNow} from '../lib/state.js';

const kinds = [['PREPARE', 'prepare'], ['LAYER', 'layer'], ['DISTILL', 'distill'], ['FINALIZE', 'finalize']];

/** The width of an element in CSS pixels, as it changes. */
export function useWidth(place, start = 600) {
  const [width, setWidth] = useState(start);
  useEffect(() => {
    const observer = new ResizeObserver(() => setWidth(place.current?.clientWidth || start));
    observer.observe(place.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

/** About `count` marks from 0 to `span` seconds. */
function timeMarks(span, count) {
  const nice = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];
  const step = nice.find((one) => span / one <= count) ?? nice[nice.length - 1];
  return Array.from({length: Math.floor(span / step) + 1}, (_, index) => index * step);
}

export function Timeline({tasks}) {
  const place = useRef(null);
  const width = useWidth(place);
  const live = tasks.some((task) => task.state === 'LEASED');
  const now = useNow(live ? 1000 : 60000);
  const rows = timelineOf(tasks, now);
  const bars = rows.flatMap((row) => row.bars);
  const used = kinds.filter(([kind]) => bars.some((bar) => bar.kind === kind));
  const from = Math.min(...bars.map((bar) => bar.from)), to = Math.max(...bars.map((bar) => bar.to));
  const span = Math.max((to - from) / 1000, 0.001);
  const rowHeight = 40, bottom = rows.length * rowHeight;
  const x = (at) => 2 + ((at - from) / 1000 / span) * (width - 4);
  return (
    <div ref={place}>
      {rows.length === 0 ? <p class="quiet">No task has started.</p> : <>
        <ul class="legend">{used.map(([kind, title]) => <li key={kind}><svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect class={`bar-${kind}`} width="10" height="10" rx="2" /></svg>{title}</li>)}</ul>
        <svg class="timeline" width={width} height={bottom + 20} viewBox={`0 0 ${width} ${bottom + 20}`} role="img" aria-label={`Timeline of ${bars.length} tasks on ${rows.length} workers over ${formatSeconds(span)}`}>
          {timeMarks(span, width / 90).map((mark) => {
            const at = x(from + 1000 * mark);
            return <g key={mark}><line x1={at} x2={at} y1="0" y2={bottom} />
              <text x={at} y={bottom + 15} text-anchor={mark === 0 ? 'start' : at > width - 30 ? 'end' : 'middle'}>{mark === 0 ? '0' : formatSeconds(mark).replace(/ 0 (min|s|h)$/, '')}</text></g>;
          })}
          {rows.map((row, index) => (
            <g key={row.worker}>
              <text x="2" y={index * rowHeight + 13}>{row.worker}</text>
              {row.bars.map((bar) => (
                <rect key={bar.title} class={`bar-${bar.kind} ${bar.state === 'FAILED' ? 'bar-failed' : ''} ${bar.state === 'LEASED' ? 'bar-live' : ''}`}
                      x={x(bar.from)} width={Math.max(x(bar.to) - x(bar.from) - 1, 1.5)} y={index * rowHeight + 18} height="16" rx="2">
                  <title>{`${bar.title}: ${formatSeconds((bar.to - bar.from) / 1000)}${Number(bar.attempt) > 1 ? `, attempt ${bar.attempt}` : ''}`}</title>
                </rect>))}
            </g>))}
        </svg></>}
    </div>
  );
}
