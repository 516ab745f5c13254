// Several jobs side by side: bits and bytes against perplexity, and what was set otherwise.
import {useEffect, useRef, useState} from 'preact/hooks';
import {Card, Refusal, State, Table} from '../parts/basics.jsx';
import {Curves} from '../parts/Chart.jsx';
import {useWidth} from '../parts/Timeline.jsx';
import {call, finalStates, jobHref, jobName, listAll, poll, resourcePath} from '../lib/api.js';
import {formatBytes, formatChange, formatNumber, formatSeconds, lastPart} from '../lib/format.js';
import {resultOf} from '../lib/model.js';
import {settingsOf} from '../lib/settings.js';

const colours = ['accent', 'second', 'third', 'fourth', 'fifth', 'sixth'];

function niceTicks(low, high, count) {
  const raw = (high - low) / Math.max(count, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) ticks.push(Number(at.toPrecision(12)));
  return ticks;
}

/** Points with names. `points`: {name, x, y}. */
function Scatter({points, xLabel, yLabel, formatX, reference}) {
  const place = useRef(null);
  const width = useWidth(place), height = 300;
  const left = 56, right = 16, top = 14, bottom = 44;
  const ys = [...points.map((point) => point.y), ...(reference ? [reference.y] : [])];
  const pad = (low, high) => { const room = (high - low || Math.abs(high) || 1) * 0.14; return [low - room, high + room]; };
  const [x0, x1] = pad(Math.min(...points.map((point) => point.x)), Math.max(...points.map((point) => point.x)));
  const [y0, y1] = pad(Math.min(...ys), Math.max(...ys));
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
  return (
    <div ref={place}>
      <svg class="scatter" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="img" aria-label={`${yLabel} against ${xLabel} of ${points.length} jobs; the table has the figures`}>
        {niceTicks(y0, y1, 5).map((tick) => <g key={tick}><line x1={left} x2={width - right} y1={y(tick)} y2={y(tick)} /><text x={left - 6} y={y(tick) + 4} text-anchor="end">{formatNumber(tick)}</text></g>)}
        {niceTicks(x0, x1, width / 110).map((tick) => <g key={tick}><line x1={x(tick)} x2={x(tick)} y1={top} y2={height - bottom} /><text x={x(tick)} y={height - bottom + 16} text-anchor="middle">{formatX(tick)}</text></g>)}
        <text x={(left + width - right) / 2} y={height - 6} text-anchor="middle">{xLabel}</text>
        <text x="2" y="11">{yLabel}</text>
        {reference && <g><line class="reference" stroke-dasharray="5 4" x1={left} x2={width - right} y1={y(reference.y)} y2={y(reference.y)} /><text x={left + 6} y={y(reference.y) + 15}>{reference.label}</text></g>}
        {points.map((point) => {
          const flip = x(point.x) > width * 0.6;
          return <g key={point.name}><circle cx={x(point.x)} cy={y(point.y)} r="5"><title>{`${point.name}: ${formatNumber(point.y)}`}</title></circle>
            <text class="name" x={x(point.x) + (flip ? -9 : 9)} y={y(point.y) + 4} text-anchor={flip ? 'end' : 'start'}>{point.name}</text></g>;
        })}
      </svg>
    </div>
  );
}

function Choose({names}) {
  const [jobs, setJobs] = useState(null);
  const [error, setError] = useState(null);
  const [filter, setFilter] = useState('');
  useEffect(() => {
    const abort = new AbortController();
    listAll('/v1/jobs?page_size=200', 'jobs', {signal: abort.signal, limit: 1}).then(setJobs, (refused) => { if (!abort.signal.aborted) setError(refused); });
    return () => abort.abort();
  }, []);
  const [chosen, setChosen] = useState(new Set(names));
  const toggle = (id) => { const next = new Set(chosen); if (!next.delete(id)) next.add(id); setChosen(next); };
  if (error) return <Refusal error={error} />;
  const shown = (jobs ?? []).filter((job) => `${job.name} ${job.spec?.model_uri}`.includes(filter));
  return (
    <Card title="Jobs to compare">
      <div class="row"><label class="pick">Name or model <input value={filter} onInput={(event) => setFilter(event.currentTarget.value)} /></label>
        <a class="button" href={`#/compare?jobs=${[...chosen].map(encodeURIComponent).join(',')}`}>Compare {chosen.size}</a></div>
      <Table label="Jobs to choose from" rows={shown} rowKey={(job) => job.name} first={15} columns={[
        {key: 'pick', title: '', left: true, text: (job) => <input type="checkbox" aria-label={`compare ${lastPart(job.name)}`} checked={chosen.has(job.name.replace(/^jobs\//, ''))} onChange={() => toggle(job.name.replace(/^jobs\//, ''))} />},
        {key: 'job', title: 'Job', left: true, text: (job) => lastPart(job.name), value: (job) => job.name},
        {key: 'model', title: 'Model', left: true, text: (job) => lastPart(job.spec?.model_uri), value: (job) => lastPart(job.spec?.model_uri)},
        {key: 'bits', title: 'Bits', text: (job) => formatNumber(resultOf(job).bits, 3), value: (job) => resultOf(job).bits},
        {key: 'ppl', title: 'Perplexity', text: (job) => formatNumber(resultOf(job).perplexity), value: (job) => resultOf(job).perplexity},
        {key: 'state', title: 'State', text: (job) => <State state={job.state} />, value: (job) => job.state},
      ]} />
    </Card>
  );
}

export function Compare({names}) {
  const [jobs, setJobs] = useState([]);
  const [error, setError] = useState(null);
  const list = names.join(',');
  useEffect(() => {
    const abort = new AbortController();
    let done = false;
    poll(async () => {
      if (done || names.length === 0) return;
      try {
        const all = await Promise.all(names.map((name) => call(resourcePath(jobName(name)), {signal: abort.signal})));
        done = all.every((job) => finalStates.includes(job.state));
        setJobs(all);
        setError(null);
      } catch (refused) {
        if (!abort.signal.aborted && refused.code !== 0) setError(refused);
      }
    }, 3000, abort.signal);
    return () => abort.abort();
  }, [list]);

  const results = jobs.map(resultOf);
  const judged = results.filter((result) => result.perplexity !== null);
  const before = judged.map((result) => result.report.perplexityBefore);
  const reference = judged.length > 0 && before.every((value) => value === before[0]) ? {y: before[0], label: `original ${formatNumber(before[0])}`} : null;
  const settings = jobs.map((job) => new Map(settingsOf(job.spec).map((setting) => [setting.field.name, setting.text])));
  const differing = settings.length < 2 ? [] : [...settings[0].keys()].filter((name) => name !== 'output_uri' && settings.some((one) => one.get(name) !== settings[0].get(name)));
  const curves = results.filter((result) => result.report?.layers.some((layer) => layer.final !== null)).slice(0, colours.length).map((result, index) => ({
    id: result.name, label: result.name, order: index, colour: colours[index],
    xs: result.report.layers.map((layer) => layer.layer), ys: result.report.layers.map((layer) => layer.final),
  }));
  return (
    <>
      <h1>Compare</h1>
      <Refusal error={error} />
      {results.length > 0 && (
        <div class="cards">
          {judged.length > 0 && <Card title="Perplexity against stored bits"><Scatter points={judged.map((result) => ({name: result.name, x: result.bits, y: result.perplexity}))}
            xLabel="stored bits a quantized weight" yLabel="perplexity" formatX={(value) => formatNumber(value, 3)} reference={reference} /></Card>}
          {judged.length > 0 && <Card title="Perplexity against bytes"><Scatter points={judged.map((result) => ({name: result.name, x: result.bytes, y: result.perplexity}))}
            xLabel="bytes of the artifact" yLabel="perplexity" formatX={formatBytes} reference={reference} /></Card>}
          <Card title="Results" wide>
            <Table label="Results" rows={results} rowKey={(result) => result.name} columns={[
              {key: 'job', title: 'Job', left: true, text: (result) => <a href={jobHref(result.resource)}>{result.name}</a>, value: (result) => result.name},
              {key: 'state', title: 'State', left: true, text: (result) => <State state={result.state} />, value: (result) => result.state},
              {key: 'bits', title: 'Stored bits', text: (result) => formatNumber(result.bits, 3), value: (result) => result.bits},
              {key: 'bytes', title: 'Size', text: (result) => formatBytes(result.bytes), value: (result) => result.bytes},
              {key: 'before', title: 'Perplexity before', text: (result) => formatNumber(result.report?.perplexityBefore), value: (result) => result.report?.perplexityBefore ?? null},
              {key: 'after', title: 'After', text: (result) => formatNumber(result.perplexity), value: (result) => result.perplexity},
              {key: 'change', title: 'Change', text: (result) => formatChange(result.report?.perplexityBefore, result.perplexity)},
              {key: 'divergence', title: 'Divergence', text: (result) => formatNumber(result.report?.quality?.divergence, 3), value: (result) => result.report?.quality?.divergence ?? null},
              {key: 'time', title: 'Time', text: (result) => formatSeconds(result.report?.seconds), value: (result) => result.report?.seconds ?? null},
            ]} />
          </Card>
          {differing.length > 0 && <Card title="Settings that differ" wide>
            <Table label="Settings that differ" rows={differing} rowKey={(name) => name} columns={[
              {key: 'setting', title: 'Setting', left: true, text: (name) => <code>{name}</code>},
              ...results.map((result, index) => ({key: result.name, title: result.name, left: true, text: (name) => <span class="value">{settings[index].get(name)}</span>})),
            ]} />
          </Card>}
          {curves.length > 0 && <Card title="Block error of each layer, as stored" wide>
            <Curves curves={curves} xLabel="layer" yLabel="block error" title="Block error of each layer" height={260} />
            {results.length > curves.length && <p class="quiet">Of the first {curves.length} that have one.</p>}
          </Card>}
        </div>)}
      <Choose names={names} />
    </>
  );
}
