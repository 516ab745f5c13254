// All jobs, newest first.
import {useEffect, useState} from 'preact/hooks';
import {Progress, Refusal, State} from '../parts/basics.jsx';
import {call, jobHref, poll, silentSince} from '../lib/api.js';
import {formatAgo, formatBytes, formatChange, formatNumber, formatTime, lastPart} from '../lib/format.js';
import {resultOf} from '../lib/model.js';
import {useNow, useObservable} from '../lib/state.js';

// As the comparison's address holds it.
const short = (name) => name.replace(/^jobs\//, '');
const states = ['QUEUED', 'RUNNING', 'PAUSED', 'CANCELLING', 'SUCCEEDED', 'FAILED', 'CANCELLED'];

export function Jobs() {
  const [state, setState] = useState('');
  const [filter, setFilter] = useState('');
  const [typed, setTyped] = useState('');
  const [pages, setPages] = useState(['']);  // page tokens up to the one that is shown
  const [reply, setReply] = useState(null);
  const [error, setError] = useState(null);
  const [chosen, setChosen] = useState(new Set());
  const stale = useObservable(silentSince) !== null;
  const now = useNow(5000);
  const expression = [state && `state=${state}`, filter].filter(Boolean).join(' AND ');
  const pageToken = pages[pages.length - 1];

  useEffect(() => {
    const abort = new AbortController();
    const query = new URLSearchParams({page_size: '50'});
    if (expression) query.set('filter', expression);
    if (pageToken) query.set('page_token', pageToken);
    poll(async () => {
      try {
        setReply(await call(`/v1/jobs?${query}`, {signal: abort.signal}));
        setError(null);
      } catch (refused) {
        if (!abort.signal.aborted && refused.code !== 0) { setError(refused); setReply(null); }
      }
    }, 2000, abort.signal);
    return () => abort.abort();
  }, [expression, pageToken]);

  const first = () => setPages(['']);
  const jobs = reply?.jobs ?? [];
  const toggle = (name) => setChosen((old) => {
    const next = new Set(old);
    if (!next.delete(name)) next.add(name);
    return next;
  });
  return (
    <>
      <div class="row spread">
        <h1>Jobs</h1>
        <a class="button" href={`#/compare?jobs=${[...chosen].map(encodeURIComponent).join(',')}`}>
          {chosen.size > 0 ? `Compare ${chosen.size}` : 'Compare'}</a>
      </div>
      <form class="row" onSubmit={(event) => { event.preventDefault(); first(); setFilter(typed.trim()); }}>
        <label class="pick">State <select value={state} onChange={(event) => { first(); setState(event.currentTarget.value); }}>
          <option value="">all</option>{states.map((one) => <option key={one} value={one}>{one.toLowerCase()}</option>)}
        </select></label>
        <label class="pick">Filter <input value={typed} spellcheck={false} placeholder='tenant="a" AND labels.k="v"' onInput={(event) => setTyped(event.currentTarget.value)} /></label>
        <button type="submit">Filter</button>
      </form>
      <Refusal error={error} />
      {reply && jobs.length === 0 && <p class="card quiet">{expression ? 'No job is like that.' : <>No job yet. <a href="#/submit">Submit one</a>, or use <code>uniquanf submit</code>.</>}</p>}
      {jobs.length > 0 && (
        <div class="card scroll" tabIndex={0} role="region" aria-label="Jobs">
          <table class="jobs">
            <thead><tr><th scope="col" class="left">Compare</th><th scope="col" class="left">Job</th><th scope="col" class="left">State</th>
              <th scope="col" class="left">Progress</th><th scope="col">Perplexity</th><th scope="col">Size</th><th scope="col">Created</th></tr></thead>
            <tbody>{jobs.map((job) => {
              const id = lastPart(job.name), {report} = resultOf(job);
              return (
                <tr key={job.uid || job.name}>
                  <td class="left"><input type="checkbox" checked={chosen.has(short(job.name))} onChange={() => toggle(short(job.name))} aria-label={`compare ${id}`} /></td>
                  <td class="left"><a class="job-name" href={jobHref(job.name)}>{id}</a>
                    <div class="quiet">{lastPart(job.spec?.model_uri)}{job.tenant && job.tenant !== 'default' && ` · ${job.tenant}`}</div></td>
                  <td class="left span"><State state={job.state} />{(job.status_message || job.error?.message) && <div class="quiet">{job.error?.message ?? job.status_message}</div>}</td>
                  <td class="left span">{['SUCCEEDED', 'FAILED', 'CANCELLED'].includes(job.state) ? '' : <Progress progress={job.progress} state={job.state} stale={stale} />}</td>
                  <td class="span">{report && report.perplexityBefore !== null ? <>{formatNumber(report.perplexityBefore)} → {formatNumber(report.perplexityAfter)} <span class="quiet">{formatChange(report.perplexityBefore, report.perplexityAfter)}</span></> : ''}</td>
                  <td class="span">{report ? formatBytes(report.artifactBytes) : ''}</td>
                  <td class="span quiet" title={formatTime(job.create_time)}>{formatAgo(job.create_time, now)}</td>
                </tr>
              );
            })}</tbody>
          </table>
        </div>)}
      {(pages.length > 1 || reply?.next_page_token) && (
        <div class="row">
          <button type="button" disabled={pages.length < 2} onClick={() => setPages(pages.slice(0, -1))}>Newer</button>
          <button type="button" disabled={!reply?.next_page_token} onClick={() => setPages([...pages, reply.next_page_token])}>Older</button>
        </div>)}
    </>
  );
}
