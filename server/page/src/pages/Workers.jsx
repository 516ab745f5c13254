// Who works for the server, and the server itself.
import {useEffect, useState} from 'preact/hooks';
import {Figures, Refusal, State, Table} from '../parts/basics.jsx';
import {call, jobHref, listAll, poll} from '../lib/api.js';
import {formatAgo, formatBytes, formatInteger, formatTime, lastPart, number} from '../lib/format.js';
import {useNow} from '../lib/state.js';

export function Workers() {
  const [workers, setWorkers] = useState(null);
  const [server, setServer] = useState(null);
  const [error, setError] = useState(null);
  const now = useNow(1000);
  useEffect(() => {
    const abort = new AbortController();
    poll(async () => {
      try {
        setWorkers(await listAll('/v1/workers?page_size=500', 'workers', {signal: abort.signal}));
        setServer(await call('/v1/server', {signal: abort.signal}));
        setError(null);
      } catch (refused) {
        if (!abort.signal.aborted && refused.code !== 0) setError(refused);
      }
    }, 2000, abort.signal);
    return () => abort.abort();
  }, []);
  const capabilities = (worker) => worker.capabilities ?? {};
  return (
    <>
      <h1>Workers</h1>
      <Refusal error={error} />
      {server && <Figures entries={[
        {label: 'Server', value: server.version, note: server.active ? 'active' : 'standby'},
        {label: 'State', value: server.state_backend},
        {label: 'Jobs', value: formatInteger(server.num_jobs ?? 0)},
        {label: 'Tasks', value: `${formatInteger(server.num_tasks_leased ?? 0)} running`, note: `${formatInteger(server.num_tasks_ready ?? 0)} waiting`},
        {label: 'Since', value: formatTime(server.start_time)},
      ]} />}
      {workers?.length === 0 && <p class="card quiet">No worker is connected. Start one: <code>uniquanf-worker --server ADDRESS</code></p>}
      {workers?.length > 0 && (
        <section class="card">
          <Table label="Workers" rows={workers} rowKey={(worker) => worker.process || worker.session_id || worker.name} sort={{key: 'name', down: false}} columns={[
            {key: 'name', title: 'Worker', left: true, value: (worker) => worker.process || worker.name, text: (worker) => <>
              <strong>{lastPart(worker.name)}</strong>{worker.process && worker.process !== lastPart(worker.name) && <div class="quiet"><code>{worker.process}</code></div>}</>},
            {key: 'state', title: 'State', left: true, value: (worker) => worker.state, text: (worker) => <><State state={worker.state} />{worker.status_message && <div class="quiet">{worker.status_message}</div>}</>},
            {key: 'device', title: 'Device', left: true, value: (worker) => capabilities(worker).device, text: (worker) => <>{capabilities(worker).device}<div class="quiet">{capabilities(worker).device_description}</div></>},
            {key: 'memory', title: 'Memory', value: (worker) => number(capabilities(worker).memory_bytes), text: (worker) => formatBytes(capabilities(worker).memory_bytes)},
            {key: 'slots', title: 'Slots', value: (worker) => number(capabilities(worker).num_slots), text: (worker) => capabilities(worker).num_slots ?? 0},
            {key: 'tasks', title: 'Does', left: true, text: (worker) => (worker.tasks ?? []).map((task) => {
              const job = task.split('/tasks/')[0];
              return <div key={task}><a href={jobHref(job)}>{lastPart(job)}</a> {lastPart(task)}</div>;
            })},
            {key: 'version', title: 'Version', text: (worker) => worker.software_version},
            {key: 'seen', title: 'Last seen', value: (worker) => worker.last_seen_time, text: (worker) => formatAgo(worker.last_seen_time, now)},
          ]} />
        </section>)}
    </>
  );
}
