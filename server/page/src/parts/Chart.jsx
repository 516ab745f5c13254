// uPlot in Preact: drawn in the style sheet's colours, as wide as its place, usable with the keyboard.
import {useEffect, useRef, useState} from 'preact/hooks';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';
import {align, decadeMarks, decadeRange, decadeText} from '../lib/curves.js';
import {useObservable} from '../lib/state.js';
import {colour, palette, rampColour} from '../lib/theme.js';

const font = '12px system-ui, sans-serif';

function axis(more) {
  const line = colour('line');
  return {stroke: colour('dim'), font, labelFont: font, grid: {stroke: line, width: 1}, ticks: {stroke: line, width: 1, size: 5}, ...more};
}

/** The depth scale: which colour is which layer. */
function DepthScale({first, last}) {
  return (
    <div class="depth" aria-hidden="true">
      <span>{first}</span><span class="depth-bar" /><span>{last}</span>
    </div>
  );
}

/**
 * Curves over one axis, the vertical one in decades. `curves`: {id, label, order, xs, ys, colour?, points?}. Colours go with `order`
 * from the first to the last where a curve has none. `wholeX`: the marks of the horizontal axis are whole numbers.
 */
export function Curves({curves, xLabel, yLabel, title, height = 300, format = decadeText, wholeX = true}) {
  const place = useRef(null), readout = useRef(null), plot = useRef(null);
  const colours = useObservable(palette);
  const [chosen, setChosen] = useState('');
  const orders = curves.map((curve) => curve.order);
  const low = Math.min(...orders), high = Math.max(...orders);
  const byDepth = curves.length > 1 && curves.every((curve) => !curve.colour);
  const shape = JSON.stringify([curves.map((curve) => [curve.id, curve.colour ?? '', curve.points ?? '']), xLabel, yLabel, height]);
  const latest = useRef(curves), pick = useRef('');
  latest.current = curves;
  pick.current = chosen;

  useEffect(() => {
    const strokes = latest.current.map((curve) => (curve.colour ? colour(curve.colour) :
      rampColour(high > low ? (curve.order - low) / (high - low) : 0)));
    const say = (u) => {
      if (!readout.current) return;
      const index = u.cursor.idx;
      const focused = u.series.findIndex((series, at) => at > 0 && series._focus);
      const curve = latest.current.find((one) => one.id === pick.current) ??
        latest.current[(focused > 0 ? focused : latest.current.length === 1 ? 1 : 0) - 1];
      if (index === null || index === undefined || !curve) { readout.current.textContent = hint; return; }
      // The curve's nearest point at or before the cursor.
      const x = u.data[0][index];
      let at = -1;
      curve.xs.forEach((value, place) => { if (value <= x) at = place; });
      readout.current.textContent = at < 0 ? curve.label : `${curve.label} · ${xLabel} ${curve.xs[at]} · ${format(curve.ys[at])}`;
    };
    const options = {
      width: place.current.clientWidth || 300,
      height,
      legend: {show: false},
      focus: {alpha: 0.25},
      cursor: {focus: {prox: 24}, points: {size: 7}, drag: {x: true, y: false}},
      scales: {
        x: {time: false},
        y: {distr: 3, log: 10, range: (u, min, max) => decadeRange(min, max)},
      },
      axes: [
        axis({label: xLabel, labelSize: 20, size: 36, ...(wholeX ? {incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000]} : {})}),
        axis({
          label: yLabel, labelSize: 20, size: 58,
          splits: (u, index, min, max) => decadeMarks(min, max),
          filter: (u, marks) => marks,
          values: (u, marks) => marks.map(decadeText),
        }),
      ],
      series: [{}, ...latest.current.map((curve, index) => ({
        label: curve.label,
        stroke: strokes[index],
        width: 1.6,
        spanGaps: true,
        points: {show: curve.points === 'only' || curve.xs.length < 2 || curve.points === 'both', size: 6, fill: strokes[index]},
        ...(curve.points === 'only' ? {paths: () => null} : {}),
      }))],
      hooks: {setCursor: [say], setSeries: [say]},
    };
    const u = new uPlot(options, align(latest.current), place.current);
    plot.current = u;
    const resize = new ResizeObserver(() => {
      const width = place.current?.clientWidth;
      if (width && width !== u.width) u.setSize({width, height});
    });
    resize.observe(place.current);
    return () => { resize.disconnect(); u.destroy(); plot.current = null; };
  }, [shape, colours]);

  useEffect(() => { plot.current?.setData(align(curves)); });
  useEffect(() => {
    const u = plot.current;
    if (!u) return;
    const index = curves.findIndex((curve) => curve.id === chosen) + 1;
    u.setSeries(index > 0 ? index : null, {focus: true});
    u.series.forEach((series, at) => { if (at > 0) series.width = at === index ? 3 : 1.6; });
    u.redraw(false);
  }, [chosen, shape, colours]);

  const hint = 'Point at a curve, or use the arrow keys.';
  const key = (event) => {
    const u = plot.current;
    if (!u || u.data[0].length === 0) return;
    const at = curves.findIndex((curve) => curve.id === chosen);
    if (event.key === 'ArrowUp' || event.key === 'ArrowDown') {
      const next = Math.min(Math.max(at + (event.key === 'ArrowUp' ? 1 : -1), 0), curves.length - 1);
      setChosen(curves[next].id);
    } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      const index = (u.cursor.idx ?? (event.key === 'ArrowRight' ? -1 : u.data[0].length)) + (event.key === 'ArrowRight' ? 1 : -1);
      const inside = Math.min(Math.max(index, 0), u.data[0].length - 1);
      const value = u.data[Math.max(at, 0) + 1][inside];
      u.setCursor({left: u.valToPos(u.data[0][inside], 'x'), top: value > 0 ? u.valToPos(value, 'y') : 0});
    } else if (event.key === 'Escape') {
      setChosen('');
      u.setCursor({left: -10, top: -10});
    } else {
      return;
    }
    event.preventDefault();
  };

  return (
    <figure class="chart">
      <div class="chart-head">
        {byDepth && <DepthScale first={curves[0].label} last={curves[curves.length - 1].label} />}
        {!byDepth && curves.length > 1 && <ul class="legend">{curves.map((curve) => (
          <li key={curve.id}><span class={`swatch swatch-${curve.colour}`} />{curve.label}</li>))}</ul>}
        {byDepth && curves.length > 2 && (
          <label class="pick">Highlight <select value={chosen} onChange={(event) => setChosen(event.currentTarget.value)}>
            <option value="">none</option>
            {curves.map((curve) => <option key={curve.id} value={curve.id}>{curve.label}</option>)}
          </select></label>)}
      </div>
      <div class="plot" ref={place} tabIndex={0} role="group" aria-label={`${title}. ${hint}`} onKeyDown={key} />
      <figcaption ref={readout} class="readout" aria-live="polite">{hint}</figcaption>
    </figure>
  );
}
