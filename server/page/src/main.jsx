// The live page. Its address after # says what is shown: #/jobs, #/jobs/X, #/tenants/T/jobs/X, #/workers, #/compare?jobs=a,b, #/submit.
import {render} from 'preact';
import {useEffect, useRef, useState} from 'preact/hooks';
import {ThemeSwitch} from './parts/ThemeSwitch.jsx';
import {Notice} from './parts/basics.jsx';
import {Compare} from './pages/Compare.jsx';
import {JobPage} from './pages/Job.jsx';
import {Jobs} from './pages/Jobs.jsx';
import {Submit} from './pages/Submit.jsx';
import {Workers} from './pages/Workers.jsx';
import {setToken, silentSince, startPulse, token} from './lib/api.js';
import {formatSeconds, lastPart} from './lib/format.js';
import {useNow, useObservable} from './lib/state.js';
import {startTheme} from './lib/theme.js';
import './style.css';

function readRoute() {
  const [path, query = ''] = location.hash.replace(/^#/, '').split('?');
  const parts = path.split('/').filter(Boolean).map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  const plain = parts.every((part) => !part.includes('/') && part !== '.' && part !== '..');
  if (!plain) return {page: 'unknown', name: '', query: new URLSearchParams()};
  const job = parts[0] === 'tenants' && parts[2] === 'jobs' ? parts.slice(0, 4).join('/') : parts[0] === 'jobs' && parts[1] ? `jobs/${parts[1]}` : '';
  return {page: job ? 'jobs' : parts[0] || 'jobs', name: job, query: new URLSearchParams(query)};
}

function Outage() {
  const since = useObservable(silentSince);
  const now = useNow(1000);
  return (
    <div aria-live="assertive">
      {since !== null && now - since >= 0 && (
        <Notice kind="bad"><strong>No answer from the server for {formatSeconds(Math.max(1, Math.round((now - since) / 1000)))}.</strong>{' '}
          What is shown is the last that it said; trying again.</Notice>)}
    </div>
  );
}

function TokenButton() {
  const held = useObservable(token);
  const dialog = useRef(null), input = useRef(null);
  const save = (event) => {
    event.preventDefault();
    setToken(input.current.value.trim());
    input.current.value = '';
    dialog.current.close();
  };
  return (
    <>
      <button type="button" onClick={() => dialog.current.showModal()}>{held ? 'Token: set' : 'Token'}</button>
      <dialog ref={dialog} aria-labelledby="token-title">
        <form onSubmit={save} class="form">
          <h2 id="token-title">Token</h2>
          <p class="quiet">Sent with every call as <code>Authorization: Bearer …</code>. It is kept until this tab is closed, and nowhere else.</p>
          <div class="field"><label for="token">Token</label><input id="token" ref={input} type="password" autocomplete="off" spellcheck={false} /></div>
          <div class="row">
            <button type="submit" class="primary">Use it</button>
            {held && <button type="button" onClick={() => { setToken(''); dialog.current.close(); }}>Forget it</button>}
            <button type="button" onClick={() => dialog.current.close()}>Close</button>
          </div>
        </form>
      </dialog>
    </>
  );
}

const pages = [['jobs', 'Jobs'], ['workers', 'Workers'], ['compare', 'Compare'], ['submit', 'Submit']];

function App() {
  const [route, setRoute] = useState(readRoute());
  const held = useObservable(token);
  useEffect(() => {
    const change = () => {
      setRoute(readRoute());
      scrollTo(0, 0);
    };
    addEventListener('hashchange', change);
    return () => removeEventListener('hashchange', change);
  }, []);
  useEffect(() => {
    const title = lastPart(route.name) || pages.find(([page]) => page === route.page)?.[1] || 'uniquanf';
    document.title = `${title} – uniquanf`;
  }, [route]);
  const key = `${route.page}/${route.name}/${held}`;  // another token: everything anew
  return (
    <>
      <a class="skip" href="#main" onClick={(event) => { event.preventDefault(); document.getElementById('main').focus(); }}>To the content</a>
      <header class="top"><div class="top-in">
        <a class="brand" href="#/jobs">uniquanf</a>
        <nav aria-label="Pages"><ul>{pages.map(([page, title]) => (
          <li key={page}><a href={`#/${page}`} aria-current={route.page === page ? 'page' : undefined}>{title}</a></li>))}</ul></nav>
        <TokenButton />
        <ThemeSwitch />
      </div></header>
      <main id="main" tabIndex={-1}>
        <Outage />
        {route.page === 'jobs' && !route.name && <Jobs key={key} />}
        {route.page === 'jobs' && route.name && <JobPage key={key} name={route.name} />}
        {route.page === 'workers' && <Workers key={key} />}
        {route.page === 'compare' && <Compare key={key} names={(route.query.get('jobs') ?? '').split(',').filter(Boolean)} />}
        {route.page === 'submit' && <Submit key={key} />}
        {!pages.some(([page]) => page === route.page) && <Notice kind="fair">There is no such page. <a href="#/jobs">All jobs</a></Notice>}
      </main>
    </>
  );
}

startTheme();
startPulse();
render(<App />, document.getElementById('page'));
