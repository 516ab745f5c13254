// Jobs, tasks, workers and metrics as the API gives them, for tests without a server: protobuf's JSON with the names of the protos,
// 64-bit integers as strings, durations as "1.5s". `text(name)` stands for every free text, so that a test can put markup there.
const start = Date.parse('2026-11-27T09:00:00Z');
const at = (seconds) => new Date(start + 1000 * seconds).toISOString();

/** A curve that falls and flickers, the same each time. */
function losses(layer, count) {
  let seed = 7 + layer * 7919;
  const random = () => { seed = (seed * 1103515245 + 12345) % 2147483648; return seed / 2147483648; };
  const from = 2e-4 * 1.16 ** layer, to = from * 0.22;
  return Array.from({length: count}, (_, index) => (to + (from - to) * Math.exp(-5 * index / count)) * (0.93 + 0.14 * random()));
}

export function sample({layers = 32, done = 19, text = (name) => name, now = Date.now()} = {}) {
  const spec = (more) => ({
    model_uri: `file:///models/${text('Llama-3.1-8B')}`, calibration_uri: `file:///data/${text('c4_128x2048.safetensors')}`,
    evaluation_uri: 'file:///data/wikitext2.safetensors', output_uri: 's3://artifacts/llama-3bit', evaluation_entry: 'valid',
    evaluation_window: '1024', evaluation_max_windows: '200', method: 'UNIQUANF', bits: 3, group_size: '128', num_samples: '128',
    sequence_length: '2048', epochs: 20, batch_size: 4, input_prob: 0.5, uniform_learning_rate: 0.005, binary_learning_rate: 0.0005,
    grid_steps: 1, alternating_rounds: 15, remap_period: 2, seed: '0', schedule: 'SEQUENTIAL', pipeline_rounds: 4,
    initialization: 'ACTIVATION_AWARE',
    overrides: [{pattern: text('*.layers.0.*'), bits: 5}, {pattern: '*.lm_head', full_precision: true}], ...more,
  });
  const layerReports = (scale) => Array.from({length: layers}, (_, layer) => {
    const curve = losses(layer, 64);
    return {layer, bits: layer === 0 ? 5 : 3, initial_loss: curve[0] * scale * 1.3, final_loss: curve[63] * scale, duration: `${(61 + layer * 0.4).toFixed(3)}s`};
  });
  const verdict = text('Perplexity grew by 6.1%: noticeably worse than the original, and better than round to nearest (9.81).');
  const report = (bits, perplexity) => ({
    perplexity_before: 6.2411, perplexity_after: perplexity, num_evaluation_tokens: '204600', layers: layerReports(4 / bits),
    model_size_bytes: '16060522240', artifact_size_bytes: String(Math.round(16060522240 * (bits + 0.6) / 16 + 1.05e9)), average_bits: bits + 0.52, duration: '2204.113s',
    warnings: [text('layer 30: training did not lower its output error; it is stored as it began')],
    quality: {
      divergence: 0.0712, same_top_token: 0.9132, num_compared_tokens: '16384', baseline_perplexity: 9.81, verdict,
      texts: [
        {prompt: text('The capital of Norway is'), before: ' Oslo, a city at the head of a fjord.', after: ' Oslo, which lies at the head of the Oslofjord.'},
        {prompt: 'def fibonacci(n):', before: '\n    if n < 2:\n        return n', after: '\n    if n <= 1:\n        return n'},
      ],
    },
  });
  const final = (id, bits, perplexity, hoursAgo) => ({
    name: `jobs/${id}`, uid: `uid-${id}`, spec: spec({bits}), version: '400', state: 'SUCCEEDED', tenant: text('research'), priority: 0,
    labels: {sweep: text('llama'), 'require/zone': 'b'}, create_time: new Date(now - hoursAgo * 3600000).toISOString(), start_time: at(4), end_time: at(2300), update_time: at(2300),
    progress: {num_tasks: layers + 2, num_tasks_succeeded: layers + 2, num_layers: layers, num_layers_succeeded: layers, fraction: 1},
    artifact: {uri: `s3://artifacts/${text(id)}`, manifest_sha256: '6b1f'.repeat(16), size_bytes: '4312000000'}, report: report(bits, perplexity),
  });
  const running = {
    name: 'jobs/llama-3bit', uid: 'uid-running', spec: spec({}), version: '1042', state: 'RUNNING', tenant: text('research'), priority: 10,
    labels: {owner: text('lena')}, create_time: new Date(now - 1500000).toISOString(), start_time: new Date(now - 1490000).toISOString(), update_time: new Date(now).toISOString(),
    progress: {num_tasks: layers + 2, num_tasks_succeeded: done + 1, num_layers: layers, num_layers_succeeded: done, fraction: 0.571, remaining: '1104s'},
  };
  const queued = {
    name: 'jobs/qwen-cuda', uid: 'uid-queued', spec: spec({model_uri: 's3://models/Qwen3-14B', bits: 4}), version: '3', state: 'QUEUED', tenant: 'default',
    status_message: text('no worker offers device cuda'), create_time: new Date(now - 400000).toISOString(), device: 'cuda', progress: {num_tasks: 1, fraction: 0},
  };
  const failed = {
    name: 'jobs/typo', uid: 'uid-failed', spec: spec({model_uri: `file:///models/${text('Lama')}`}), version: '12', state: 'FAILED', tenant: 'default',
    create_time: new Date(now - 86400000).toISOString(), end_time: at(9), error: {reason: 'MODEL_NOT_FOUND', message: text('there is no config.json in file:///models/Lama; give the directory of a Hugging Face checkpoint'), task: 'jobs/typo/tasks/prepare'},
    progress: {num_tasks: 1, fraction: 0},
  };
  const jobs = [running, queued, final('llama-4bit', 4, 6.4013, 2), final('llama-3bit-g128', 3, 6.6218, 4), final('llama-2bit', 2, 8.9127, 7), failed];

  const tasksOf = (job) => {
    const ended = job.state === 'SUCCEEDED', count = job.progress?.num_layers ?? 0;
    const begun = Date.parse(job.start_time ?? job.create_time) / 1000, iso = (seconds) => new Date(1000 * (begun + seconds)).toISOString();
    const task = (name, kind, more) => ({name: `${job.name}/tasks/${name}`, kind, attempt: 1, worker: `workers/${text('gpu-a')}`, ...more});
    if (count === 0) {
      return [task('prepare', 'PREPARE', job.state === 'FAILED' ? {
        state: 'FAILED', attempt: 2, start_time: iso(1), end_time: iso(2),
        failures: [1, 2].map((attempt) => ({failure_class: 'ENVIRONMENT', reason: 'MODEL_NOT_FOUND', message: job.error.message, attempt, worker: `workers/${text('gpu-a')}`, time: iso(attempt)})),
      } : {state: 'READY', attempt: 0, worker: ''})];
    }
    const all = [task('prepare', 'PREPARE', {state: 'SUCCEEDED', start_time: iso(0), end_time: iso(11)})];
    for (let layer = 0; layer < count; ++layer) {
      const state = ended || layer < done ? 'SUCCEEDED' : layer === done ? 'LEASED' : 'BLOCKED';
      const from = 12 + layer * 74;
      all.push(task(`layer-${String(layer).padStart(4, '0')}`, 'LAYER', {
        layer, state, attempt: state === 'BLOCKED' ? 0 : layer === 7 ? 2 : 1, worker: state === 'BLOCKED' ? '' : `workers/${text(layer % 5 === 3 ? 'gpu-b' : 'gpu-a')}`,
        ...(state === 'BLOCKED' ? {} : {start_time: iso(from)}), ...(state === 'SUCCEEDED' ? {end_time: iso(from + 72)} : {}),
        ...(state === 'LEASED' ? {progress: {phase: 'reconstructing', step: '380', num_steps: '640', loss: losses(layer, 64)[38], remaining: '31s'}} : {}),
        ...(layer === 7 && state !== 'BLOCKED' ? {failures: [{failure_class: 'WORKER_LOST', reason: 'LEASE_EXPIRED', message: text('the worker did not call for 30 s'), attempt: 1, worker: `workers/${text('gpu-b')}`, time: iso(from - 30)}]} : {}),
      }));
    }
    all.push(task('finalize', 'FINALIZE', ended ? {state: 'SUCCEEDED', start_time: iso(12 + count * 74), end_time: iso(60 + count * 74)} : {state: 'BLOCKED', attempt: 0, worker: ''}));
    return all;
  };
  const points = (job) => tasksOf(job).filter((task) => task.kind === 'LAYER' && task.state !== 'BLOCKED')
    .map((task) => {
      const curve = losses(task.layer, 64).slice(0, task.state === 'LEASED' ? 38 : 64);
      return {
        task: task.name, kind: 'LAYER', layer: task.layer, history: {steps: curve.map((_, index) => String((index + 1) * 10)), losses: curve},
        ...(task.state === 'SUCCEEDED' ? {
          initial_loss: curve[0] * 1.3, final_loss: curve[63], phases: [{phase: 'initializing', duration: '9.2s'}, {phase: 'reconstructing', duration: '58.1s'}],
          modules: ['self_attn.q_proj', 'self_attn.o_proj', 'mlp.gate_proj', 'mlp.down_proj'].map((name, index) => ({
            module: text(`model.layers.${task.layer}.${name}`), bits: task.layer === 0 ? 5 : 3, group_size: '128', weight_error: 1e-6 * (1 + ((task.layer * 7 + index * 13) % 29))})),
        } : {}),
      };
    });
  const workers = [['gpu-a', 'READY'], ['gpu-b', 'QUARANTINED'], ['cpu-1', 'DRAINING']].map(([id, state], index) => ({
    name: `workers/${text(id)}`, session_id: `s${index}`, process: `${text(id)}@1f2e3d4${index}`, state, software_version: '0.1.0', last_seen_time: new Date(now - 900 * index).toISOString(),
    capabilities: {device: index < 2 ? 'cuda' : 'cpu', device_description: text(index < 2 ? 'NVIDIA H100 80GB HBM3, CUDA 12.4' : 'AMD EPYC 9354, OpenBLAS 0.3.21'), memory_bytes: index < 2 ? '85899345920' : '270582939648', num_slots: 1, num_cpus: 32},
    tasks: index === 0 ? ['jobs/llama-3bit/tasks/layer-0019'] : [], status_message: state === 'QUARANTINED' ? text('3 jobs failed on it one after the other; for 9 min') : '', start_time: at(0),
  }));
  const server = {version: '0.1.0', active: true, state_backend: 'sqlite', object_root: 'file:///var/lib/uniquanf', start_time: at(-7200), num_jobs: String(jobs.length), num_tasks_ready: '1', num_tasks_leased: '1'};
  return {jobs, tasksOf, metricsOf: (job) => points(job), workers, server, losses};
}

/** What worker/task/report_html.cc writes into a report. */
export function sampleReport({text = (name) => name, layers = 32} = {}) {
  const {jobs, losses: curve} = sample({text, layers});
  const job = jobs.find((one) => one.name === 'jobs/llama-3bit-g128');
  const plain = (value) => Number(value);
  const {report} = job;
  const modules = [];
  for (let layer = 0; layer < layers; ++layer) {
    for (const [name, rows, columns] of [['self_attn.q_proj', 4096, 4096], ['self_attn.k_proj', 1024, 4096], ['self_attn.v_proj', 1024, 4096], ['self_attn.o_proj', 4096, 4096], ['mlp.gate_proj', 14336, 4096], ['mlp.up_proj', 14336, 4096], ['mlp.down_proj', 4096, 14336]]) {
      const index = modules.length;
      modules.push({name: text(`model.layers.${layer}.${name}`), num_outputs: rows, num_inputs: columns, quantized: true, bits: layer === 0 ? 5 : 3, group_size: 128,
                    weight_error: 1e-6 * (1 + ((index * 37) % 41)), size_bytes: Math.round(rows * columns * 3.6 / 8), num_saturated: 0});
    }
  }
  modules.push({name: 'lm_head', num_outputs: 128256, num_inputs: 4096, quantized: false, reason: text('override *.lm_head')});
  const {evaluation_uri, model_uri, calibration_uri, output_uri, ...spec} = job.spec;
  return {
    format: 'uniquanf-report', version: 1, model: {name: text('Llama-3.1-8B'), architecture: text('LlamaForCausalLM'), num_layers: layers},
    job: 'jobs/llama-3bit-g128', finished: '2026-11-27T09:38:20Z', software_version: '0.1.0', manifest_sha256: '6b1f'.repeat(16),
    environment: text('cuda: NVIDIA H100 80GB HBM3, CUDA 12.4; arithmetic bf16'), device: 'cuda', arithmetic: 'bf16', num_samples: 128, sequence_length: 2048, num_steps: 640,
    spec, given: ['model_uri', 'calibration_uri', 'evaluation_uri'],
    report: {...report, num_evaluation_tokens: 204600, model_size_bytes: plain(report.model_size_bytes), artifact_size_bytes: plain(report.artifact_size_bytes), duration_seconds: 2204.1,
             layers: report.layers.map((layer) => ({...layer, duration_seconds: parseFloat(layer.duration)})), windows: []},
    layers: report.layers.map((layer) => ({layer: layer.layer, kept_start: layer.layer === 30, num_folded: layer.layer === 1 ? 12 : 0, loss_curve: curve(layer.layer, 128)})),
    modules, parts: [
      {name: 'codes', size_bytes: 2.6e9}, {name: 'scales and shifts', size_bytes: 4.4e8}, {name: 'embedding, head, final norm', size_bytes: 1.05e9}, {name: 'unquantized weights of layers', size_bytes: 1.2e6}, {name: 'tokenizer, config, indexes', size_bytes: 1.1e7}],
  };
}
