import assert from 'node:assert/strict';
import {test} from 'node:test';
import './spec_fields_hook.mjs';
import {eventParser, jobHref, jobName, resourcePath} from '../../src/lib/api.js';
import {align, decadeMarks, decadeRange, decadeText, reportCurves} from '../../src/lib/curves.js';
import {formatBytes, formatChange, formatNumber, formatSeconds, lastPart, number, seconds} from '../../src/lib/format.js';
import {metricsStore} from '../../src/lib/metrics.js';
import {reportOf, sortTasks, taskTitle, timelineOf} from '../../src/lib/model.js';
import {parseSpecTable, readPresets, readSpecTable} from '../../scripts/spec_table.mjs';

const {rerunCommand, settingsOf, shellWord} = await import('../../src/lib/settings.js');

test('numbers are what protobuf writes', () => {
  assert.equal(number('123456789'), 123456789);
  for (const none of ['NaN', 'Infinity', '-Infinity', '', null, undefined, 'x', true]) assert.equal(number(none), null);
  assert.equal(seconds('19.279262845s'), 19.279262845);
  assert.equal(seconds(3), 3);
  assert.equal(seconds(undefined), null);
});

test('figures are short', () => {
  assert.equal(formatNumber(0.00016384), '1.64e-4');
  assert.equal(formatNumber(6.24114), '6.241');
  assert.equal(formatNumber('NaN'), '–');
  assert.equal(formatBytes('16060522240'), '15.0 GiB');
  assert.equal(formatBytes(0), '0 B');
  assert.equal(formatChange(17.37, 21.38), '+23.1%');
  assert.equal(formatChange(10, 900), '90.0 times');
  assert.equal(formatChange(10, 9), '−10.0%');
  assert.equal(formatSeconds('3725.2s'), '1 h 2 min');
  assert.equal(formatSeconds(59.7), '60 s');
  assert.equal(lastPart('file:///models/Llama/'), 'Llama');
});

test('axes of decades have marks at 1, 2 and 5', () => {
  assert.deepEqual(decadeRange(0.013, 0.019), [0.01, 0.02]);
  assert.deepEqual(decadeRange(3e-5, 4e-3), [2e-5, 5e-3]);
  assert.deepEqual(decadeRange(0, 0), [0.1, 1]);
  const [low, high] = decadeRange(0.02, 0.02);
  assert.ok(high > low);
  assert.deepEqual(decadeMarks(0.001, 0.1), [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1]);
  assert.deepEqual(decadeMarks(1e-6, 1), [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1]);
  assert.equal(decadeText(1e-4), '10⁻⁴');
  assert.equal(decadeText(5e-4), '5·10⁻⁴');
});

test('curves of different steps share an axis', () => {
  const aligned = align([{xs: [1, 3], ys: [5, 0]}, {xs: [2, 3], ys: [6, 7]}]);
  assert.deepEqual(aligned, [[1, 2, 3], [5, null, null], [null, 6, 7]]);
  const [curve] = reportCurves([{layer: 3, loss_curve: [4, null, 1]}, {layer: 4, loss_curve: []}], 30);
  assert.deepEqual(curve.xs, [10, 20, 30]);
  assert.deepEqual(curve.ys, [4, null, 1]);
});

test('events are split wherever the network cuts them', () => {
  const text = ': hello\n\nid: 7\ndata: {"a":1}\n\nid: 8\r\nevent: x\r\ndata: one\r\ndata: two\r\n\r\n';
  for (let size = 1; size < text.length; ++size) {
    const parse = eventParser();
    const found = [];
    for (let at = 0; at < text.length; at += size) found.push(...parse(text.slice(at, at + size)));
    assert.deepEqual(found, [{id: '7', event: 'message', data: '{"a":1}'}, {id: '8', event: 'x', data: 'one\ntwo'}], `pieces of ${size}`);
  }
});

test('names go into addresses as they are', () => {
  assert.equal(resourcePath('jobs/a b?#', ':cancel'), '/v1/jobs/a%20b%3F%23:cancel');
  assert.equal(jobName('x'), 'jobs/x');
  assert.equal(jobName('tenants/t/jobs/x'), 'tenants/t/jobs/x');
  assert.equal(jobHref('tenants/t/jobs/x'), '#/tenants/t/jobs/x');
});

test('a history grows, and a later round follows the one before', () => {
  const store = metricsStore();
  store.addReply({tasks: [
    {task: 'jobs/x/tasks/layer-0001-1', kind: 'LAYER', layer: 1, round: 1, history: {steps: ['10', '20'], losses: [0.5, 0.4]}},
    {task: 'jobs/x/tasks/layer-0001', kind: 'LAYER', layer: 1, history: {steps: ['10', '20'], losses: [2, 1]}, initial_loss: 3},
    {task: 'jobs/x/tasks/layer-0000', kind: 'LAYER', history: {steps: ['5'], losses: ['NaN']}},
    {task: 'jobs/x/tasks/distill-0000', kind: 'DISTILL', history: {steps: ['1'], losses: [0.1]}},
  ]});
  store.addTask({name: 'jobs/x/tasks/layer-0001-1', kind: 'LAYER', layer: 1, round: 1, state: 'LEASED', progress: {phase: 'reconstructing', step: '25', loss: 0.35}});
  let view = store.view();
  assert.deepEqual(view.curves.map((curve) => curve.label), ['layer 0', 'layer 1']);
  assert.deepEqual(view.curves[1].xs, [10, 20, 30, 40, 45]);
  assert.deepEqual(view.curves[1].ys, [2, 1, 0.5, 0.4, 0.35]);
  assert.equal(view.windows.length, 1);
  assert.equal(view.layers[0].initial, 3);
  // The attempt was lost: its losses are no part of the layer.
  store.addTask({name: 'jobs/x/tasks/layer-0001-1', kind: 'LAYER', layer: 1, round: 1, state: 'READY'});
  view = store.view();
  assert.deepEqual(view.curves[1].xs, [10, 20]);
});

test('a report is the same from the API and from a file', () => {
  const api = reportOf({perplexity_before: 5, perplexity_after: 'Infinity', model_size_bytes: '10', duration: '4s', layers: [{layer: 1, duration: '2s'}]});
  const file = reportOf({perplexity_before: 5, perplexity_after: null, model_size_bytes: 10, duration_seconds: 4, layers: [{layer: 1, initial_loss: null, duration_seconds: 2}]});
  assert.deepEqual(api, file);
  assert.equal(reportOf(undefined), null);
});

test('tasks are named, ordered and drawn', () => {
  assert.equal(taskTitle({name: 'jobs/x/tasks/layer-0003-1', kind: 'LAYER', layer: 3, round: 1}), 'layer 3, round 2');
  const order = sortTasks([{kind: 'FINALIZE'}, {kind: 'LAYER', layer: 1}, {kind: 'LAYER'}, {kind: 'PREPARE'}]).map((task) => `${task.kind}${task.layer ?? ''}`);
  assert.deepEqual(order, ['PREPARE', 'LAYER', 'LAYER1', 'FINALIZE']);
  const rows = timelineOf([{name: 'a', state: 'LEASED', worker: 'workers/w', start_time: '2026-01-01T00:00:00Z'}, {name: 'b'}], Date.parse('2026-01-01T00:00:09Z'));
  assert.equal(rows.length, 1);
  assert.equal(rows[0].bars[0].to - rows[0].bars[0].from, 9000);
});

test('the settings are those of docs/SPEC.md', () => {
  const table = readSpecTable();
  const bits = table.find((field) => field.name === 'bits');
  assert.deepEqual([bits.flag, bits.type, bits.value], ['--bits', 'integer', 4]);
  assert.ok(table.find((field) => field.name === 'method').words.includes('gptq'));
  assert.deepEqual(readPresets().map((preset) => preset.name), ['fast', 'default', 'best']);
  assert.throws(() => parseSpecTable('# nothing'), /no tables/);
});

test('what differs from the default is told from what does not', () => {
  const differing = (spec) => settingsOf(spec).filter((setting) => setting.differs).map((setting) => setting.field.name);
  assert.deepEqual(differing({method: 'UNIQUANF', bits: 4, num_samples: '128', levels: 'LEVELS_UNSPECIFIED', preset: 'PRESET_UNSPECIFIED', overrides: []}), []);
  assert.deepEqual(differing({method: 'GPTQ', bits: 3, group_size: '64'}), ['method', 'bits', 'group_size']);
  assert.deepEqual(differing({method: 'gptq', new_field: 1}), ['method', 'new_field']);
});

test('the command runs the job again, whatever the names are', () => {
  const spec = {model_uri: "file:///a b'c; rm -rf /", output_uri: 's3://x/y', bits: 3, overrides: [{pattern: '*.q_proj', bits: 5, group_size: -1}, {pattern: 'x', full_precision: true, bits: 0}]};
  assert.equal(rerunCommand(spec, 'uniquanf submit'),
    "uniquanf submit \\\n  --model='file:///a b'\\''c; rm -rf /' \\\n  --output=OUTPUT \\\n  --bits=3 \\\n  --override='*.q_proj=bits:5' \\\n  --override=x=full");
  assert.match(rerunCommand({bits: 4}, 'uniquanf-batch quantize', ['model_uri', 'calibration_uri']), /--model=MODEL \\\n {2}--calibration=CALIBRATION \\\n {2}--output=OUTPUT$/);
  assert.equal(shellWord('$(x)'), "'$(x)'");
});
