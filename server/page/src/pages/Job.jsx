// One job: what it does now, its curves from the start, and what became of it.
import {useEffect, useMemo, useRef, useState} from 'preact/hooks';
import {Card, Copyable, Figures, Notice, Progress, Refusal, State, Table} from '../parts/basics.jsx';
import {Timeline} from '../parts/Timeline.jsx';
import {KeyFigures, LayerErrors, LayerTable, LossCurves, DistillCurves, ModuleTable, Rerun, Samples, Settings, Verdict, Warnings, Windows} from '../parts/results.jsx';
import {call, finalStates, followJob, resourcePath, silentSince} from '../lib/api.js';
import {formatAgo, formatBytes, formatInteger, formatNumber, formatSeconds, formatTime, lastPart, number, seconds} from '../lib/format.js';
import {followMetrics} from '../lib/metrics.js';
import {failuresOf, reportOf, sortTasks, taskTitle} from '../lib/model.js';
import {useNow, useObservable} from '../lib/state.js';

function Actions({job, onJob}) {
  const [error, setError] = useState(null);
  const [asked, setAsked] = useState('');
  const act = async (verb) => {
    setAsked('');
    try {
      onJob(await call(resourcePath(job.name, `:${verb}`), {method: 'POST', body: {}}));
      setError(null);
    } catch (refused) { setError(refused); }
  };
  const final = finalStates.includes(job.state);
  return (
    <>
      <div class="row">
        {!final && job.state !== 'CANCELLING' && (asked === 'cancel' ?
          <><span>Cancel the job?</span><button type="button" class="danger" onClick={() => act('cancel')}>Yes, cancel it</button><button type="button" onClick={() => setAsked('')}>No</button></> :
          <button type="button" class="danger" onClick={() => setAsked('cancel')}>Cancel</button>)}
        {!final && job.state === 'PAUSED' && <button type="button" onClick={() => act('resume')}>Resume</button>}
        {['QUEUED', 'RUNNING', 'WAITING'].includes(job.state) && <button type="button" onClick={() => act('pause')}>Pause</button>}
        {['FAILED', 'CANCELLED'].includes(job.state) && <button type="button" onClick={() => act('retry')}>Retry</button>}
      </div>
      <Refusal error={error} />
    </>
  );
}

function Running({tasks, stale, now}) {
  const running = tasks.filter((task) => task.state === 'LEASED');
  if (running.length === 0) return null;
  return (
    <ul class="running">{running.map((task) => {
      const progress = task.progress ?? {};
      const steps = number(progress.num_steps);
      const remaining = seconds(progress.remaining);
      return (
        <li key={task.name}><strong>{taskTitle(task)}</strong>
          <span>{progress.phase || 'starting'}{steps > 0 && ` ${formatInteger(progress.step ?? 0)} of ${formatInteger(steps)}`}</span>
          {number(progress.loss) > 0 && <span>loss {formatNumber(progress.loss, 3)}</span>}
          {!stale && remaining !== null && <span>{formatSeconds(remaining)} left</span>}
          <span class="quiet">on {lastPart(task.worker)}, for {formatSeconds(task.start_time ? Math.max(0, Math.round((now - Date.parse(task.start_time)) / 1000)) : null)}
            {number(task.attempt) > 1 && `, attempt ${task.attempt}`}</span>
        </li>);
    })}</ul>
  );
}

function Attempts({tasks}) {
  const failures = failuresOf(tasks);
  if (failures.length === 0) return null;
  return (
    <Card title="Failed attempts" wide>
      <Table label="Failed attempts" rows={failures} rowKey={(failure, index) => index} first={10} columns={[
        {key: 'time', title: 'When', left: true, text: (failure) => formatTime(failure.time)},
        {key: 'task', title: 'Task', left: true, text: (failure) => failure.title},
        {key: 'attempt', title: 'Attempt', text: (failure) => failure.attempt ?? ''},
        {key: 'worker', title: 'Worker', left: true, text: (failure) => lastPart(failure.worker)},
        {key: 'reason', title: 'Reason', left: true, text: (failure) => <code>{failure.reason || failure.failure_class}</code>},
        {key: 'message', title: 'Message', left: true, text: (failure) => <span class="value">{failure.message}</span>},
      ]} />
    </Card>
  );
}

function Tasks({tasks}) {
  return (
    <Card title="Tasks" wide>
      <Timeline tasks={tasks} />
      <details><summary>Every task</summary>
        <Table label="Tasks" rows={sortTasks(tasks)} rowKey={(task) => task.name} columns={[
          {key: 'task', title: 'Task', left: true, text: taskTitle},
          {key: 'state', title: 'State', left: true, text: (task) => <State state={task.state} />, value: (task) => task.state},
          {key: 'attempt', title: 'Attempts', text: (task) => task.attempt ?? 0, value: (task) => number(task.attempt) ?? 0},
          {key: 'worker', title: 'Worker', left: true, text: (task) => lastPart(task.worker), value: (task) => task.worker ?? ''},
          {key: 'start', title: 'Started', text: (task) => formatTime(task.start_time), value: (task) => task.start_time ?? null},
          {key: 'took', title: 'Took', text: (task) => formatSeconds(task.start_time && task.end_time ? (Date.parse(task.end_time) - Date.parse(task.start_time)) / 1000 : null)},
        ]} />
      </details>
    </Card>
  );
}

function Downloads({job}) {
  const artifact = job.artifact;
  if (!artifact?.uri) return null;
  return (
    <Card title="Artifact">
      <dl class="digests">
        <dt>Place</dt><dd><code>{artifact.uri}</code></dd>
        <dt>SHA-256 of manifest.json</dt><dd><code>{artifact.manifest_sha256}</code></dd>
        <dt>Size</dt><dd>{formatBytes(artifact.size_bytes)}</dd>
      </dl>
      <Copyable label="Download" text={`uniquanf download ${lastPart(job.name)} --output=${lastPart(job.name)}`} />
    </Card>
  );
}

export function JobPage({name}) {
  const id = lastPart(name);
  const [job, setJob] = useState(null);
  const [tasks, setTasks] = useState([]);
  const [mode, setMode] = useState('stream');
  const [error, setError] = useState(null);
  const [metrics, setMetrics] = useState({curves: [], windows: [], modules: [], layers: []});
  const known = useRef(new Map());
  const latest = useRef(null);
  const now = useNow(1000);
  const stale = useObservable(silentSince) !== null;

  useEffect(() => {
    const abort = new AbortController();
    followJob(name, {
      signal: abort.signal,
      mode: setMode,
      fail: setError,
      update: (news) => {
        if (latest.current && latest.current.uid !== news.job.uid) known.current.clear();  // the name was used again
        latest.current = news.job;
        for (const task of news.tasks) known.current.set(task.name, task);
        setJob(news.job);
        setTasks(sortTasks(known.current.values()));
      },
    });
    followMetrics(name, {signal: abort.signal, update: setMetrics, final: () => finalStates.includes(latest.current?.state),
                         tasks: () => known.current});
    return () => abort.abort();
  }, [name]);

  const report = useMemo(() => reportOf(job?.report), [job]);
  if (!job) return <><h1>{id}</h1><Refusal error={error} />{!error && <p class="quiet">Asking the server …</p>}</>;
  const final = finalStates.includes(job.state);
  const layers = report?.layers.length > 0 ? report.layers : metrics.layers;
  const progress = job.progress ?? {};
  return (
    <>
      <div class="row spread">
        <div><h1>{id} <State state={job.state} /></h1>
          <p class="quiet">{lastPart(job.spec?.model_uri)} · created {formatAgo(job.create_time, now)}
            {job.end_time && ` · ended ${formatAgo(job.end_time, now)}`}{mode === 'poll' && !final && ' · polling: the server has no stream free'}</p></div>
        <Actions job={job} onJob={setJob} />
      </div>
      <Refusal error={error} />
      {job.error && <Notice kind="bad"><p>{job.error.message} <code class="reason">[{job.error.reason}]</code></p>
        {job.error.task && <p>In task <code>{lastPart(job.error.task)}</code>.</p>}</Notice>}
      {job.status_message && !final && <Notice kind="fair">{job.status_message}</Notice>}
      {report && <Verdict report={report} />}
      <KeyFigures report={report} />
      <Warnings warnings={report?.warnings} />
      {!final && (
        <Card>
          <Progress progress={progress} state={job.state} stale={stale} />
          <Figures entries={[
            number(progress.num_layers) > 0 && {label: 'Layers', value: `${progress.num_layers_succeeded ?? 0} of ${progress.num_layers}`},
            {label: 'Tasks', value: `${progress.num_tasks_succeeded ?? 0} of ${progress.num_tasks ?? 1}`},
            !stale && seconds(progress.remaining) !== null && {label: 'Done at about', value: formatTime(new Date(now + 1000 * seconds(progress.remaining)).toISOString())},
          ]} />
          <Running tasks={tasks} stale={stale} now={now} />
        </Card>)}
      <div class="cards">
        <LossCurves curves={metrics.curves} live={!final} />
        <DistillCurves curves={metrics.windows} />
        <LayerErrors layers={layers} />
        <Downloads job={job} />
        <Card title="Job" wide={!job.artifact}>
          <Figures entries={[
            {label: 'Tenant', value: job.tenant || 'default'},
            {label: 'Priority', value: job.priority ?? 0},
            {label: 'Device', value: job.device || 'any'},
            {label: 'Created', value: formatTime(job.create_time)},
            job.start_time && {label: 'Started', value: formatTime(job.start_time)},
            job.end_time && {label: 'Ended', value: formatTime(job.end_time)},
            job.deadline && {label: 'Deadline', value: formatTime(job.deadline)},
            ...Object.entries(job.labels ?? {}).map(([key, value]) => ({label: `Label ${key}`, value})),
          ]} />
        </Card>
        <ModuleTable modules={metrics.modules} />
        <LayerTable layers={layers} />
        <Windows windows={report?.windows} />
        <Samples texts={report?.quality?.texts} />
        <Settings spec={job.spec} />
        <Tasks tasks={tasks} />
        <Attempts tasks={tasks} />
        <Rerun spec={job.spec} program="uniquanf submit" note="The same inputs give the same bytes on the same kind of device. OUTPUT is another place, or left out." />
      </div>
    </>
  );
}
