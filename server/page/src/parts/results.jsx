// What became of a job: the parts that the live page and the report share.
import {Card, Copyable, Figures, Notice, Table} from './basics.jsx';
import {Curves} from './Chart.jsx';
import {formatBytes, formatChange, formatInteger, formatNumber, formatPercent, formatSeconds} from '../lib/format.js';
import {grade} from '../lib/model.js';
import {rerunCommand, settingsOf} from '../lib/settings.js';
import {useState} from 'preact/hooks';

export function Verdict({report}) {
  const text = report?.quality?.verdict;
  if (text) return <Notice kind={grade(report) || 'fair'}><strong>{text}</strong></Notice>;
  if (report) return <Notice kind="fair">Quality was not measured: the job had no evaluation tokens.</Notice>;
  return null;
}

export function Warnings({warnings}) {
  if (!warnings?.length) return null;
  return (
    <Notice kind="fair">
      <h2>{warnings.length === 1 ? 'A warning' : `${warnings.length} warnings`}</h2>
      <ul class="warnings">{warnings.map((warning, index) => <li key={index}>{warning}</li>)}</ul>
    </Notice>
  );
}

export function KeyFigures({report}) {
  if (!report) return null;
  const {quality} = report;
  return (
    <Figures entries={[
      report.perplexityBefore !== null && {
        label: 'Perplexity', value: `${formatNumber(report.perplexityBefore)}\u00a0→\u00a0${report.perplexityAfter === null ? 'not finite' : formatNumber(report.perplexityAfter)}`,
        note: formatChange(report.perplexityBefore, report.perplexityAfter)},
      report.artifactBytes !== null && {
        label: 'Size', value: `${formatBytes(report.modelBytes)} → ${formatBytes(report.artifactBytes)}`.replaceAll(/ (?=[KMGT]?i?B)/g, '\u00a0'),
        note: report.modelBytes && report.artifactBytes ? `${(report.modelBytes / report.artifactBytes).toFixed(1)} times smaller` : ''},
      report.averageBits !== null && {label: 'Stored bits a quantized weight', value: formatNumber(report.averageBits, 3)},
      quality?.divergence !== null && quality?.divergence !== undefined && {
        label: 'Divergence from the original', value: formatNumber(quality.divergence, 3), note: 'nats a token'},
      quality?.sameTop !== null && quality?.sameTop !== undefined && {
        label: 'Same most probable token', value: formatPercent(quality.sameTop), note: `of ${formatInteger(quality.numCompared)}`},
      quality?.baseline != null && {label: 'Round to nearest', value: formatNumber(quality.baseline), note: 'perplexity'},
      report.numTokens > 0 && {label: 'Evaluated on', value: formatInteger(report.numTokens), note: 'tokens'},
      report.seconds !== null && {label: 'Computing time', value: formatSeconds(report.seconds)},
    ]} />
  );
}

export function LossCurves({curves, live}) {
  if (curves.length === 0) {
    return live ? <Card title="Loss while reconstructing" wide><p class="quiet">No layer has a loss yet.</p></Card> : null;
  }
  return (
    <Card title="Loss while reconstructing" wide>
      <p class="quiet">Mean squared error of the block's output on the batches of each step, one curve a layer.</p>
      <Curves curves={curves} xLabel="step" yLabel="loss" title="Loss while reconstructing, one curve a layer" />
    </Card>
  );
}

export function DistillCurves({curves}) {
  if (!curves?.length) return null;
  return (
    <Card title="Divergence while distilling" wide>
      <p class="quiet">From the original model's next-token distributions, in nats a token, one curve a window of layers.</p>
      <Curves curves={curves} xLabel="step" yLabel="divergence" title="Divergence while distilling, one curve a window" height={240} />
    </Card>
  );
}

export function LayerErrors({layers}) {
  const measured = layers.filter((layer) => layer.initial !== null || layer.final !== null);
  if (measured.length === 0) return null;
  const line = (id, label, colour, member) => ({
    id, label, colour, order: 0, points: 'both',
    xs: measured.map((layer) => layer.layer), ys: measured.map((layer) => layer[member]),
  });
  return (
    <Card title="Block error of each layer" wide>
      <p class="quiet">Mean squared error of the block's output on the calibration data, before reconstruction and as stored.</p>
      <Curves curves={[line('initial', 'before', 'second', 'initial'), line('final', 'stored', 'accent', 'final')]}
              xLabel="layer" yLabel="block error" title="Block error of each layer" height={240} />
    </Card>
  );
}

export function LayerTable({layers}) {
  if (layers.length === 0) return null;
  const ratio = (layer) => (layer.initial > 0 && layer.final !== null ? layer.final / layer.initial : null);
  const notes = layers.some((layer) => layer.notes.length > 0);
  return (
    <Card title="Layers" wide>
      <Table label="Layers" rows={layers} rowKey={(layer) => layer.layer} first={12} columns={[
        {key: 'layer', title: 'Layer', text: (layer) => layer.layer, value: (layer) => layer.layer},
        {key: 'bits', title: 'Bits', text: (layer) => layer.bits || 'full', value: (layer) => layer.bits},
        {key: 'initial', title: 'Error before', text: (layer) => formatNumber(layer.initial), value: (layer) => layer.initial},
        {key: 'final', title: 'Error stored', text: (layer) => formatNumber(layer.final), value: (layer) => layer.final},
        {key: 'ratio', title: 'Ratio', text: (layer) => formatNumber(ratio(layer), 3), value: ratio},
        {key: 'seconds', title: 'Time', text: (layer) => formatSeconds(layer.seconds), value: (layer) => layer.seconds},
        ...(notes ? [{key: 'notes', title: 'Notes', left: true, text: (layer) => layer.notes.join('; ')}] : []),
      ]} />
    </Card>
  );
}

/** `modules`: {name, num_outputs, num_inputs, quantized, bits, group_size, weight_error, relative_error?, size_bytes?, reason?}. */
export function ModuleTable({modules}) {
  if (!modules?.length) return null;
  const shapes = modules.some((module) => module.num_inputs > 0);  // the API does not tell them
  const sizes = modules.some((module) => module.size_bytes);
  const relative = modules.some((module) => module.relative_error != null);
  return (
    <Card title="Modules, the worst first" wide>
      <Table label="Modules" rows={modules} rowKey={(module) => module.name} first={10} sort={{key: relative ? 'relative' : 'error', down: true}} columns={[
        {key: 'name', title: 'Module', left: true, text: (module) => <code>{module.name}</code>, value: (module) => module.name},
        ...(shapes ? [{key: 'shape', title: 'Shape', text: (module) => `${module.num_outputs} × ${module.num_inputs}`, value: (module) => module.num_outputs * module.num_inputs}] : []),
        {key: 'bits', title: 'Bits', text: (module) => (module.quantized ? module.bits : <span title={module.reason}>full</span>), value: (module) => (module.quantized ? module.bits : 99)},
        {key: 'group', title: 'Group', text: (module) => (module.quantized ? (module.group_size >= (module.num_inputs ?? Infinity) ? 'row' : module.group_size) : ''), value: (module) => module.group_size ?? null},
        ...(relative ? [{key: 'relative', title: 'Relative error', text: (module) => (module.quantized ? formatPercent(module.relative_error, 2) : ''), value: (module) => module.relative_error ?? null}] : []),
        {key: 'error', title: 'Weight error', text: (module) => (module.quantized ? formatNumber(module.weight_error, 3) : ''), value: (module) => (module.quantized ? module.weight_error : null)},
        ...(sizes ? [{key: 'size', title: 'Stored', text: (module) => formatBytes(module.size_bytes), value: (module) => module.size_bytes ?? null}] : []),
      ]} />
      <p class="quiet">Weight error: mean squared difference of the weights as stored from the original's.</p>
    </Card>
  );
}

export function Windows({windows}) {
  if (!windows?.length) return null;
  return (
    <Card title="Distillation" wide>
      <p class="quiet">KL divergence of the next-token distributions from the original model's, in nats a token, on held-back calibration data.</p>
      <Table label="Distilled windows" rows={windows} rowKey={(window) => window.first} columns={[
        {key: 'layers', title: 'Layers', left: true, text: (window) => `${window.first} to ${window.first + window.count - 1}`},
        {key: 'initial', title: 'Before', text: (window) => formatNumber(window.initial)},
        {key: 'final', title: 'After', text: (window) => formatNumber(window.final)},
        {key: 'seconds', title: 'Time', text: (window) => formatSeconds(window.seconds)},
      ]} />
    </Card>
  );
}

/** `parts`: {name, size_bytes}, of the artifact's files. */
export function Parts({parts}) {
  if (!parts?.length) return null;
  const total = parts.reduce((sum, part) => sum + part.size_bytes, 0);
  return (
    <Card title={`Bytes by part: ${formatBytes(total)}`}>
      <svg class="parts" viewBox="0 0 1000 24" preserveAspectRatio="none" role="img" aria-label="Bytes by part">
        {parts.reduce((drawn, part, index) => {
          const width = total > 0 ? (1000 * part.size_bytes) / total : 0;
          drawn.list.push(<rect key={part.name} class={`part-${index % 6}`} x={drawn.at} y="0" width={Math.max(width - 2, 0.5)} height="24" />);
          drawn.at += width;
          return drawn;
        }, {at: 0, list: []}).list}
      </svg>
      <table class="plain"><tbody>{parts.map((part, index) => (
        <tr key={part.name}><th scope="row" class="left"><span class={`swatch part-${index % 6}`} />{part.name}</th>
          <td>{formatBytes(part.size_bytes)}</td><td>{total > 0 && part.size_bytes / total < 0.0005 ? '< 0.1%' : formatPercent(total > 0 ? part.size_bytes / total : 0)}</td></tr>))}</tbody></table>
    </Card>
  );
}

// A continuation often begins with a space or a line break.
const shown = (text) => String(text ?? '').replace(/^(?: |\n)+(?=\S)|^\n+/, '');

export function Samples({texts}) {
  if (!texts?.length) return null;
  return (
    <Card title="What both write" wide>
      <p class="quiet">After the same beginning, the most probable token each time.</p>
      <div class="samples">{texts.map((text, index) => (
        <article key={index} class="sample">
          <h3>{shown(text.prompt)}</h3>
          <dl><dt>Original</dt><dd>{shown(text.before)}</dd><dt>Artifact</dt><dd>{shown(text.after)}</dd></dl>
        </article>))}</div>
    </Card>
  );
}

export function Settings({spec, note}) {
  const [all, setAll] = useState(false);
  const settings = settingsOf(spec);
  const shown = settings.filter((setting) => all || setting.differs);
  return (
    <Card title="Settings" wide actions={
      <label class="switch"><input type="checkbox" checked={all} onChange={() => setAll(!all)} /> also what is as by default</label>}>
      {note && <p class="quiet">{note}</p>}
      {shown.length === 0 ? <p class="quiet">Everything is as by default.</p> : (
        <div class="scroll" tabIndex={0} role="region" aria-label="Settings"><table><thead><tr>
          <th scope="col" class="left">Setting</th><th scope="col" class="left">Value</th><th scope="col" class="left">Default</th></tr></thead>
          <tbody>{shown.map(({field, text, differs}) => (
            <tr key={field.name} class={differs ? 'differs' : undefined}>
              <th scope="row" class="left"><code title={field.help}>{field.name}</code></th><td class="left value">{text}</td>
              <td class="left quiet">{field.required || field.type === 'URI' ? '' : field.type === 'list' || field.value === '' ? 'none' : String(field.value)}</td></tr>))}</tbody></table></div>)}
    </Card>
  );
}

export function Rerun({spec, program, missing, note}) {
  return (
    <Card title="Run it again" wide>
      {note && <p class="quiet">{note}</p>}
      <Copyable label="Command" text={rerunCommand(spec, program, missing)} />
    </Card>
  );
}
