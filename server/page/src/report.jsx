// The report: one file in every artifact, drawn from the JSON that worker/task/report_html.cc puts into it.
import {render} from 'preact';
import {Card, Figures, Notice} from './parts/basics.jsx';
import {KeyFigures, LayerErrors, LayerTable, LossCurves, ModuleTable, Parts, Rerun, Samples, Settings, Verdict, Warnings, Windows} from './parts/results.jsx';
import {ThemeSwitch} from './parts/ThemeSwitch.jsx';
import {reportCurves} from './lib/curves.js';
import {formatTime, lastPart} from './lib/format.js';
import {reportOf} from './lib/model.js';
import {startTheme} from './lib/theme.js';
import './style.css';

function Report({data}) {
  const report = reportOf(data.report);
  const facts = new Map((data.layers ?? []).map((layer) => [layer.layer, layer]));
  const layers = report.layers.map((layer) => {
    const fact = facts.get(layer.layer);
    const notes = [];
    if (fact?.kept_start) notes.push('stored as it began');
    if (fact?.num_folded > 0) notes.push(`${fact.num_folded} channels folded`);
    return {...layer, notes};
  });
  return (
    <>
      <header class="top"><div class="top-in">
        <div class="title"><h1>{data.model.name || data.model.architecture}</h1>
          <p class="quiet">Quantization report{data.job && <> of job <code>{lastPart(data.job)}</code></>}</p></div>
        <ThemeSwitch />
      </div></header>
      <main>
        <Verdict report={report} />
        <KeyFigures report={report} />
        <Warnings warnings={report.warnings} />
        <div class="cards">
          <LossCurves curves={reportCurves(data.layers ?? [], data.num_steps)} />
          <LayerErrors layers={layers} />
          <Parts parts={data.parts} />
          <Card title="What this is">
            <Figures entries={[
              {label: 'Model', value: data.model.architecture, note: `${data.model.num_layers} layers`},
              data.job && {label: 'Job', value: lastPart(data.job)},
              {label: 'Made', value: formatTime(data.finished)},
              {label: 'By', value: `uniquanf ${data.software_version}`},
              {label: 'On', value: data.device, note: data.arithmetic},
              data.num_samples > 0 && {label: 'Calibration', value: `${data.num_samples} × ${data.sequence_length}`, note: 'tokens'},
            ]} />
            <dl class="digests">
              <dt>Artifact (SHA-256 of manifest.json)</dt><dd><code>{data.manifest_sha256}</code></dd>
              <dt>Environment</dt><dd>{data.environment}</dd>
            </dl>
          </Card>
          <ModuleTable modules={data.modules} />
          <LayerTable layers={layers} />
          <Windows windows={report.windows} />
          <Samples texts={report.quality?.texts} />
          <Settings spec={data.spec} note="An artifact does not say where its inputs lay." />
          <Rerun spec={data.spec} program="uniquanf-batch quantize" missing={data.given ?? []}
                 note="With what the words in capitals stand for in their places. The same inputs give the same bytes on the same kind of device." />
        </div>
      </main>
      <footer>uniquanf {data.software_version}. The figures are in this file as JSON too, in the element with the id “data”.</footer>
    </>
  );
}

startTheme();
const place = document.getElementById('page');
let data = null;
try {
  data = JSON.parse(document.getElementById('data').textContent);
} catch { /* said below */ }
if (data?.format === 'uniquanf-report') {
  document.title = `${data.model.name || data.model.architecture} – quantization report`;
  render(<Report data={data} />, place);
} else {
  render(<main><Notice kind="bad">This file holds no report.</Notice></main>, place);
}
