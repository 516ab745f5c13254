// What the pages show of a job, from two sources that look the same afterwards: the API's JSON (64-bit integers as strings, durations
// "1.5s", unset members missing, unmeasured losses 0) and the JSON in a report (numbers, *_seconds, null).
import {lastPart, number, seconds, time} from './format.js';

/** {perplexityBefore, perplexityAfter, ..., layers, windows, warnings, quality}; null where there is no report. */
export function reportOf(report) {
  if (!report) return null;
  const loss = (layer, value) => (number(layer.initial_loss) || number(layer.final_loss) ? number(value) : null);
  const duration = (entry) => seconds(entry.duration ?? entry.duration_seconds);
  const quality = report.quality ?? null;
  return {
    perplexityBefore: number(report.perplexity_before),
    perplexityAfter: number(report.perplexity_after),
    numTokens: number(report.num_evaluation_tokens),
    modelBytes: number(report.model_size_bytes),
    artifactBytes: number(report.artifact_size_bytes),
    averageBits: number(report.average_bits),
    seconds: duration(report),
    warnings: report.warnings ?? [],
    layers: (report.layers ?? []).map((layer) => ({
      layer: number(layer.layer) ?? 0,
      bits: number(layer.bits) ?? 0,
      initial: loss(layer, layer.initial_loss),
      final: loss(layer, layer.final_loss),
      seconds: duration(layer),
      notes: [],
    })),
    windows: (report.windows ?? []).map((window) => ({
      first: number(window.first_layer) ?? 0,
      count: number(window.num_layers) ?? 1,
      initial: number(window.initial_divergence),
      final: number(window.final_divergence),
      seconds: duration(window),
    })),
    quality: quality && {
      verdict: quality.verdict ?? '',
      divergence: number(quality.num_compared_tokens) ? number(quality.divergence) : null,
      sameTop: number(quality.num_compared_tokens) ? number(quality.same_top_token) : null,
      numCompared: number(quality.num_compared_tokens) ?? 0,
      baseline: number(quality.baseline_perplexity),
      texts: quality.texts ?? [],
    },
  };
}

/** The verdict's colour: "good", "fair", "bad", or "" where nothing was measured. */
export function grade(report) {
  if (!report || report.perplexityBefore === null) return '';
  if (report.perplexityAfter === null) return 'bad';
  const growth = report.perplexityAfter / report.perplexityBefore;
  return growth <= 1.05 ? 'good' : growth <= 1.25 ? 'fair' : 'bad';
}

/** "jobs/x/tasks/layer-0003-1" as people say it. */
export function taskTitle(task) {
  const name = lastPart(task.name);
  const layer = number(task.layer) ?? 0;
  const round = number(task.round) ?? 0;
  switch (task.kind) {
    case 'PREPARE': return 'prepare';
    case 'LAYER': return round > 0 || /-\d+-\d+$/.test(name) ? `layer ${layer}, round ${round + 1}` : `layer ${layer}`;
    case 'DISTILL': return `distill from layer ${layer}`;
    case 'FINALIZE': return 'finalize';
    default: return name;
  }
}

const kinds = {PREPARE: 0, LAYER: 1, DISTILL: 2, FINALIZE: 3};

/** In the order in which they run. */
export function sortTasks(tasks) {
  return [...tasks].sort((a, b) => (kinds[a.kind] ?? 9) - (kinds[b.kind] ?? 9) ||
    (number(a.round) ?? 0) - (number(b.round) ?? 0) || (number(a.layer) ?? 0) - (number(b.layer) ?? 0));
}

/** Every failed attempt, the latest first. */
export function failuresOf(tasks) {
  return tasks.flatMap((task) => (task.failures ?? []).map((failure) => ({...failure, title: taskTitle(task)})))
    .sort((a, b) => (time(b.time) ?? 0) - (time(a.time) ?? 0));
}

/** Bars of the timeline, a row for each worker: {worker, bars: [{title, kind, state, from, to}]}. */
export function timelineOf(tasks, now) {
  const rows = new Map();
  for (const task of tasks) {
    const from = time(task.start_time);
    if (from === null) continue;
    const worker = lastPart(task.worker) || 'unknown';
    if (!rows.has(worker)) rows.set(worker, []);
    rows.get(worker).push({
      title: taskTitle(task), kind: task.kind, state: task.state, attempt: task.attempt, from,
      to: time(task.end_time) ?? (task.state === 'LEASED' ? now : from),
    });
  }
  return [...rows].sort().map(([worker, bars]) => ({worker, bars: bars.sort((a, b) => a.from - b.from)}));
}

/** Perplexity, sizes and bits of a job for comparing; null where it has no result yet. */
export function resultOf(job) {
  const report = reportOf(job.report);
  return {
    name: lastPart(job.name),
    resource: job.name,
    state: job.state,
    report,
    perplexity: report?.perplexityAfter ?? null,
    bits: report?.averageBits ?? null,
    bytes: report?.artifactBytes ?? null,
  };
}
