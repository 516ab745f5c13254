// A job's history (JobMetrics): the losses of every layer from its first step, what became of modules, and how long phases took.
import {call, poll, resourcePath} from './api.js';
import {number, seconds} from './format.js';
import {taskTitle} from './model.js';

/** Collects replies of GetJobMetrics, which tell what changed, and the tasks' latest losses between them. */
export function metricsStore() {
  const tasks = new Map();  // name: TaskMetrics
  const latest = new Map();  // name: {step, loss} after the history

  const curve = (parts, id, label, order) => {
    const xs = [], ys = [];
    for (const part of parts) {
      const steps = part.history?.steps ?? [], losses = part.history?.losses ?? [];
      const now = latest.get(part.task);
      // Steps of a later round go on or begin again.
      const begin = xs.length > 0 && number(steps[0] ?? now?.step) <= xs[xs.length - 1] ? xs[xs.length - 1] : 0;
      const add = (step, loss) => { xs.push(begin + step); ys.push(loss); };
      steps.forEach((step, index) => add(number(step), number(losses[index])));
      if (now && now.step > (number(steps[steps.length - 1]) ?? -1)) add(now.step, now.loss);
    }
    return {id, label, order, xs, ys};
  };
  const byLayer = (kind) => {
    const layers = new Map();
    for (const task of tasks.values()) {
      if ((task.kind ?? '') !== kind) continue;
      const layer = number(task.layer) ?? 0;
      if (!layers.has(layer)) layers.set(layer, []);
      layers.get(layer).push(task);
    }
    return [...layers].sort((a, b) => a[0] - b[0])
      .map(([layer, parts]) => [layer, parts.sort((a, b) => (number(a.round) ?? 0) - (number(b.round) ?? 0))]);
  };
  return {
    addReply(reply) {
      for (const task of reply.tasks ?? []) tasks.set(task.task, task);
    },
    /** Of a Task as the stream gives it. */
    addTask(task) {
      const loss = number(task.progress?.loss), step = number(task.progress?.step) ?? 0;
      if (task.state === 'LEASED' && task.progress?.phase === 'reconstructing' && loss > 0) {
        latest.set(task.name, {step, loss});
        if (!tasks.has(task.name)) tasks.set(task.name, {task: task.name, kind: task.kind, layer: task.layer, round: task.round});
      } else if (task.state !== 'LEASED') {
        latest.delete(task.name);
        // An attempt that is gone leaves no curve.
        if (task.state === 'READY' || task.state === 'BLOCKED') tasks.delete(task.name);
      }
    },
    view() {
      const layers = byLayer('LAYER');
      const modules = new Map();
      for (const [, parts] of layers) {
        for (const module of parts[parts.length - 1].modules ?? []) {
          modules.set(module.module, {
            name: module.module, quantized: (number(module.bits) ?? 0) > 0, bits: number(module.bits) ?? 0,
            group_size: number(module.group_size), weight_error: number(module.weight_error), num_saturated: number(module.num_saturated) ?? 0,
          });
        }
      }
      const some = (one) => one.xs.length > 0;
      return {
        curves: layers.map(([layer, parts]) => curve(parts, `layer-${layer}`, `layer ${layer}`, layer)).filter(some),
        windows: byLayer('DISTILL').map(([layer, parts]) => curve(parts, `window-${layer}`, `from layer ${layer}`, layer)).filter(some),
        modules: [...modules.values()],
        // As a report's layers, as far as they are done.
        layers: layers.map(([layer, parts]) => {
          const first = parts[0], last = parts[parts.length - 1];
          const initial = number(first.initial_loss), final = number(last.final_loss);
          const times = parts.flatMap((part) => part.phases ?? []).map((phase) => seconds(phase.duration) ?? 0);
          const bits = (last.modules ?? []).map((module) => number(module.bits) ?? 0).filter((one) => one > 0);
          return {layer, bits: bits[0] ?? 0, initial: initial || null, final: final || null, notes: [],
                  seconds: times.length > 0 ? times.reduce((sum, one) => sum + one, 0) : null};
        }).filter((layer) => layer.initial !== null || layer.final !== null),
        phases: [...tasks.values()].filter((task) => task.phases?.length > 0).map((task) => ({title: taskTitle({...task, name: task.task}), phases: task.phases})),
      };
    },
  };
}

/** Asks for the history at once and what is new of it while the job runs; `tasks()`: what the stream has said of tasks. */
export function followMetrics(name, {signal, update, final, tasks}) {
  const store = metricsStore();
  let version = '', complete = false, missing = false;
  poll(async () => {
    if (complete) {
      complete = final();  // a job that was retried has news
      if (complete) return;
    }
    const ended = final();
    try {
      let pageToken = '';
      do {
        if (missing) break;
        const query = new URLSearchParams();
        if (version) query.set('after_version', version);
        if (pageToken) query.set('page_token', pageToken);
        const reply = await call(`${resourcePath(name, '/metrics')}${query.size > 0 ? `?${query}` : ''}`, {signal});
        store.addReply(reply);
        pageToken = reply.next_page_token ?? '';
        if (!pageToken) version = reply.version ?? '';
      } while (pageToken);
      complete = ended;
    } catch (error) {
      if (signal.aborted) return;
      if (error.code === 0) version = '';
      missing = error.code === 501;
    }
    for (const task of tasks().values()) store.addTask(task);
    update(store.view());
  }, 2000, signal);
}
