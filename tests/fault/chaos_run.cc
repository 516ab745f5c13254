#include "tests/fault/chaos_run.h"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <sstream>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "client/include/uniquanf/client.h"
#include "common/base/crash_point.h"
#include "common/object_store/object_store.h"
#include "tests/fault/appearance_counter.h"
#include "tests/fault/chaos_checks.h"
#include "tests/fault/chaos_plan.h"
#include "tests/fault/task_history.h"
#include "tests/support/failing_http_proxy.h"
#include "tests/support/mini_cluster.h"
#include "tests/support/tcp_proxy.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tls_certificates.h"

namespace uniquanf {
namespace {

constexpr int kNumWorkers = 2;
constexpr absl::Duration kLease = absl::Seconds(1);
constexpr absl::Duration kJobTimeout = absl::Seconds(90);
constexpr absl::Duration kTick = absl::Milliseconds(10);
constexpr double kStoreFailureRate = 0.1;
// Longer than any call of a server to the database lasts.
constexpr int kMaxRemakes = 3;  // of one result, by the server's rule
constexpr absl::Duration kServersSettle = absl::Seconds(40);
constexpr CrashPoint kServerPoints[] = {"store.before_begin", "store.before_commit",
                                        "store.after_commit", "runtime.before_reply",
                                        "runtime.after_reply"};
constexpr CrashPoint kWorkerPoints[] = {
    "finalize.before_manifest",  "finalize.after_manifest",  "layer.shard_stored",
    "layer.result_stored",       "finalize.claimed",         "finalize.shard_copied",
    "worker.before_task",        "worker.before_report",     "worker.after_report",
    "local_store.before_rename", "local_store.after_rename", "worker.after_result_stored"};

// Certificates and the policy of a closed service.
class Identities {
 public:
  Identities() : authority_(dir_.path(), "chaos"), server_(authority_.Issue("server")) {
    const nlohmann::json everywhere = {"file:///", "s3://uniquanf"};
    std::ofstream(dir_.File("policy.json")) << nlohmann::json{
        {"version", 1},
        {"certificates", {{"trust_domain", "chaos"}}},
        {"bindings",
         {{{"principals", {"tenant/*/user/*"}}, {"role", "user"}},
          {{"principals", {"worker/*"}}, {"role", "worker"}}}},
        {"tenants", {{"*", {{"data", {{"read", everywhere}, {"output", everywhere}}}}}}}};
  }
  std::vector<std::string> ServerFlags() const {
    return {"--tls-cert=" + server_.certificate, "--tls-key=" + server_.key,
            "--tls-ca=" + authority_.certificate_file(), "--policy=" + dir_.File("policy.json")};
  }
  std::vector<std::string> WorkerFlags() const {
    const TlsFiles files = authority_.IssueFor("worker", "spiffe://chaos/worker/w");
    return {"--tls-ca=" + authority_.certificate_file(), "--tls-server-name=localhost",
            "--tls-cert=" + files.certificate, "--tls-key=" + files.key};
  }
  void UseIn(ClientOptions* options) const {
    const TlsFiles files = authority_.IssueFor("user", "spiffe://chaos/tenant/chaos/user/u");
    options->tls_ca_file = authority_.certificate_file();
    options->tls_server_name = "localhost";
    options->tls_certificate_file = files.certificate;
    options->tls_key_file = files.key;
  }

 private:
  TempDir dir_;
  TlsAuthority authority_;
  TlsFiles server_;
};

class ChaosRun {
 public:
  ChaosRun(uint64_t seed, const ChaosWorld& world, const ChaosOptions& options)
      : seed_(seed), options_(options), random_(seed), plan_(DrawPlan(seed)), start_(absl::Now()) {
    variant_ = static_cast<int>(Below(ChaosWorld::kNumVariants));
    lossy_workers_ = Chance(0.5);
    lossy_client_ = Chance(0.3);
    const bool wants_s3 = Chance(0.15);  // drawn in any case, so that a seed means the same plan
    on_s3_ = wants_s3 && !options.s3_address.empty();
    world_ = on_s3_ ? options.s3_world : &world;
    cancels_ = Chance(0.08);
    pauses_ = !cancels_ && Chance(0.1);
    num_actions_ = 1 + static_cast<int>(Below(5));
    num_armed_server_ = static_cast<int>(Below(3));
    num_armed_worker_ = static_cast<int>(Below(4));
    on_postgres_ = plan_.on_postgres && options.postgres != nullptr;
    if (on_postgres_) {
      database_ =
          std::make_unique<Outage>(Crashable{[this] { return options_.postgres->Crash(); },
                                             [this] { return options_.postgres->Restart(); }});
    }
    if (on_s3_ && options.s3.crash != nullptr) store_ = std::make_unique<Outage>(options.s3);
  }

  ChaosResult Run() {
    Setup();
    if (result_.violations.empty()) {
      std::thread watcher([this] { Watch(); });
      Disturb();
      StopWatching();
      watcher.join();
      Check();
    }
    Finish();
    return std::move(result_);
  }

 private:
  struct Process {
    std::string name;
    int server = -1;                                 // which; -1: a worker
    absl::Time restart_at = absl::InfiniteFuture();  // dead, to be started then
    absl::Time resume_at = absl::InfiniteFuture();   // stopped until then
    bool ending = false;                             // got SIGTERM
  };

  // ---- Randomness and the trace
  double Uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }
  bool Chance(double probability) { return Uniform() < probability; }
  uint64_t Below(uint64_t limit) { return random_() % limit; }
  absl::Duration Between(absl::Duration low, absl::Duration high) {
    return low + (high - low) * Uniform();
  }
  void Trace(const std::string& what) {
    result_.trace.push_back(
        absl::StrFormat("%7.3f %s", absl::ToDoubleSeconds(absl::Now() - start_), what));
  }
  void Violation(const std::string& what) {
    Trace("VIOLATION: " + what);
    result_.violations.push_back(what);
  }
  void Violations(const std::vector<std::string>& all) {
    for (const std::string& what : all) Violation(what);
  }

  // ---- The world
  void Setup() {
    MiniClusterOptions cluster_options;
    cluster_options.binary_dir = options_.binary_dir;
    cluster_options.lease_duration = kLease;
    cluster_options.server_flags = {"--log-level=debug",
                                    "--log-format=json",
                                    "--retry-max-worker-lost=100",
                                    "--retry-max-transient=100",
                                    "--retry-backoff-initial=20ms",
                                    "--retry-backoff-max=200ms"};
    if (on_s3_) {
      store_proxy_ =
          std::make_unique<FailingHttpProxy>(options_.s3_address, seed_ + 1, kStoreFailureRate);
      environment_["AWS_ENDPOINT_URL"] = absl::StrCat("http://", store_proxy_->address());
      const std::string root = absl::StrCat("s3://uniquanf/chaos-", getpid(), "-", seed_, "-",
                                            absl::ToUnixMicros(start_));
      cluster_options.server_flags.push_back(absl::StrCat("--object-root=", root, "/objects"));
      output_ = absl::StrCat(root, "/out");
    }
    if (options_.identity) {
      identities_ = std::make_unique<Identities>();
      for (const std::string& flag : identities_->ServerFlags()) {
        cluster_options.server_flags.push_back(flag);
      }
      worker_flags_ = identities_->WorkerFlags();
    }
    if (on_postgres_) {
      cluster_options.num_servers = ChaosPlan::kNumServers;
      cluster_options.server_flags.push_back("--state=" + options_.postgres->NewState());
    }
    cluster_ = std::make_unique<MiniCluster>(cluster_options);
    if (identities_ != nullptr) {
      ClientOptions caller;
      identities_->UseIn(&caller);
      cluster_->set_client_options(caller);
    }
    if (!on_s3_) {
      const std::string dir = cluster_->File("out");
      std::filesystem::create_directory(dir);
      publications_ = std::make_unique<AppearanceCounter>(dir, "manifest.json");
      output_ = absl::StrCat("file://", dir);
    }
    processes_.push_back({"server", 0});
    if (!StartServers()) {
      Violation("the server does not start");
      return;
    }
    TcpFaults faults;
    faults.cut = 0.3;
    faults.truncate = 0.2;
    faults.silence = 0.1;
    faults.max_life = absl::Milliseconds(1500);
    faults.max_delay = absl::Milliseconds(10);
    ClientOptions client_options;
    client_options.server = cluster_->address();
    if (lossy_workers_) AddProxies(seed_ + 2, faults, &worker_proxies_);
    if (lossy_client_) client_options.server = AddProxies(seed_ + 3, faults, &client_proxies_);
    client_options.retry.max_attempts = 20;
    client_options.retry.initial_backoff = absl::Milliseconds(50);
    client_options.retry.max_backoff = absl::Milliseconds(500);
    if (identities_ != nullptr) identities_->UseIn(&client_options);
    client_ = Client::Connect(client_options).value();
    for (int i = 0; i < kNumWorkers; ++i) {
      processes_.push_back({absl::StrCat("w", i)});
      StartProcess(&processes_.back());
    }
    for (int i = 1; i < NumServers(); ++i) processes_.push_back({absl::StrCat("server-", i), i});
    SubmitOptions submit;
    submit.spec = world_->Spec(variant_);
    submit.spec.output_uri = output_;
    submit.request_id = absl::StrCat("chaos-", seed_);
    const auto job = client_->SubmitJob(submit);
    if (!job.ok()) {
      Violation(absl::StrCat("submit: ", job.status().ToString()));
      return;
    }
    job_ = job->name;
    Trace(absl::StrCat("submitted ", job_, variant_ == 0 ? ", layers in a chain" : ", independent",
                       lossy_workers_ ? ", lossy workers" : "",
                       lossy_client_ ? ", lossy client" : "", on_s3_ ? ", failing S3" : "",
                       on_postgres_ ? ", two servers on PostgreSQL" : "",
                       cancels_ ? ", cancels" : "", pauses_ ? ", pauses" : ""));
  }

  int NumServers() const { return on_postgres_ ? ChaosPlan::kNumServers : 1; }

  bool StartServers() {
    if (!on_postgres_) return cluster_->StartServer(ServerOptions(/*may_arm=*/false));
    for (int i = 0; i < NumServers(); ++i) {
      if (!cluster_->StartServer(i, ServerOptions(/*may_arm=*/false))) return false;
    }
    return WaitUntil([this] { return NumActive() == 1; }, kServersSettle);
  }

  int NumActive() const {
    int num_active = 0;
    for (int i = 0; i < NumServers(); ++i) num_active += cluster_->IsActive(i) ? 1 : 0;
    return num_active;
  }

  // One before each server; returns their addresses.
  std::string AddProxies(uint64_t seed, const TcpFaults& faults,
                         std::vector<std::unique_ptr<TcpProxy>>* proxies) {
    for (int i = 0; i < NumServers(); ++i) {
      proxies->push_back(std::make_unique<TcpProxy>(
          cluster_->address(i), seed + 1000000007 * static_cast<uint64_t>(i), faults));
    }
    return Addresses(*proxies);
  }
  static std::string Addresses(const std::vector<std::unique_ptr<TcpProxy>>& proxies) {
    return absl::StrJoin(
        proxies, ",", [](std::string* out, const auto& proxy) { out->append(proxy->address()); });
  }

  ProgramOptions ServerOptions(bool may_arm) {
    ProgramOptions options;
    options.environment = environment_;
    if (may_arm && num_armed_server_ > 0) {
      --num_armed_server_;
      const int nth = 1 + static_cast<int>(Below(20));
      const std::string point = kServerPoints[Below(std::size(kServerPoints))].At(nth);
      Trace("server armed with " + point);
      options.environment[kCrashPointVariable] = point;
    }
    return options;
  }

  ProgramOptions WorkerOptions() {
    ProgramOptions options;
    options.environment = environment_;
    options.flags = {"--threads=1", "--drain-timeout=300ms"};
    options.flags.insert(options.flags.end(), worker_flags_.begin(), worker_flags_.end());
    options.server = Addresses(worker_proxies_);
    if (num_armed_worker_ > 0 && Chance(0.7)) {
      --num_armed_worker_;
      const int nth = 1 + static_cast<int>(Below(3));
      const std::string point = kWorkerPoints[Below(std::size(kWorkerPoints))].At(nth);
      Trace("worker armed with " + point);
      options.environment[kCrashPointVariable] = point;
    }
    return options;
  }

  ChildProcess* ProcessOf(const Process& process) {
    return process.server >= 0 ? cluster_->server(process.server) : cluster_->worker(process.name);
  }

  void StartProcess(Process* process) {
    process->restart_at = process->resume_at = absl::InfiniteFuture();
    process->ending = false;
    Trace("start " + process->name);
    if (process->server < 0) {
      cluster_->StartWorker(process->name, WorkerOptions());
      // One that was armed may die before it serves; it is started again then.
    } else if (on_postgres_) {
      cluster_->StartServer(process->server, ServerOptions(/*may_arm=*/true));
    } else {
      cluster_->StartServer(ServerOptions(/*may_arm=*/true));
    }
  }

  // ---- The disturbance
  void Disturb() {
    absl::Time next_action = absl::Now() + Between(absl::ZeroDuration(), absl::Milliseconds(500));
    const absl::Time user_at =
        absl::Now() + Between(absl::ZeroDuration(), absl::Milliseconds(1500));
    bool user_done = !cancels_ && !pauses_;
    bool loss_done = on_s3_ || !plan_.lose_result_at.has_value();
    const absl::Time begin = absl::Now();
    std::vector<PlannedAction> planned;
    if (on_postgres_) planned = plan_.with_postgres;
    if (store_ != nullptr) {
      planned.insert(planned.end(), plan_.with_s3.begin(), plan_.with_s3.end());
    }
    while (true) {
      const absl::Time now = absl::Now();
      if (history_.final_state().has_value()) return;
      // How long database and store take to come up is not the service's doing.
      if (now > begin + kJobTimeout + DownFor(database_) + DownFor(store_)) {
        const auto job = cluster_->client().GetJob(job_);
        Violation(
            absl::StrCat("the job does not end: ",
                         job.ok() ? absl::StrCat(JobStateName(job->state), " ", job->status_message)
                                  : job.status().ToString()));
        return;
      }
      Supervise(now);
      if (num_actions_ > 0 && now >= next_action) {
        --num_actions_;
        next_action = now + Between(absl::ZeroDuration(), absl::Milliseconds(800));
        Act(now);
      }
      std::erase_if(planned, [&](const PlannedAction& action) {
        return now >= begin + action.at && Perform(action, now);
      });
      if (!loss_done && now >= begin + *plan_.lose_result_at) loss_done = LoseResult();
      if (!user_done && now >= user_at) {
        user_done = true;
        UserActs();
      }
      absl::SleepFor(kTick);
    }
  }

  // Starts again what has died, resumes what was stopped for long enough.
  void Supervise(absl::Time now) {
    for (Process& process : processes_) {
      if (process.restart_at <= now) {
        StartProcess(&process);
      } else if (process.resume_at <= now) {
        Trace("resume " + process.name);
        ProcessOf(process)->Signal(SIGCONT);
        process.resume_at = absl::InfiniteFuture();
      } else if (process.restart_at == absl::InfiniteFuture()) {
        const std::optional<ExitStatus> status =
            ProcessOf(process)->WaitForExit(absl::ZeroDuration());
        if (!status.has_value()) continue;
        Trace(absl::StrCat(process.name, " has ended: ", status->signal != 0 ? "signal " : "exit ",
                           status->signal != 0 ? status->signal : status->code));
        if (status->signal != SIGKILL && (*status != ExitStatus{0, 0} || !process.ending)) {
          std::ostringstream how;
          how << *status;
          Violation(absl::StrCat(process.name, " ended by itself: ", how.str()));
        }
        process.restart_at = now + Between(absl::ZeroDuration(), absl::Milliseconds(400));
      }
    }
  }

  void Act(absl::Time now) {
    Process& server = processes_[0];
    Process& worker = processes_[1 + Below(kNumWorkers)];
    const double draw = Uniform();
    Process& victim = draw < 0.35 ? server : worker;
    const bool is_running = victim.restart_at == absl::InfiniteFuture();
    if (!is_running) return;
    if (draw < 0.65) {
      Kill(&victim);
    } else if (draw < 0.85) {
      if (victim.resume_at != absl::InfiniteFuture()) return;
      Stop(&victim, now + Between(kLease / 2, 2.5 * kLease));
    } else if (draw < 0.93) {
      if (End(&victim)) ++num_drains_;
    } else if (!worker_proxies_.empty()) {
      Trace("cut every worker's connection");
      for (const auto& proxy : worker_proxies_) proxy->CutAll();
    }
  }

  void Kill(Process* process) {
    Trace("kill -9 " + process->name);
    ProcessOf(*process)->Signal(SIGKILL);
  }
  void Stop(Process* process, absl::Time until) {
    Trace("stop " + process->name);
    ProcessOf(*process)->Signal(SIGSTOP);
    process->resume_at = until;
  }
  // False when it is not done: a second SIGTERM ends a process at once, by its contract, and so
  // does the first while it is being loaded and nothing of ours has run yet.
  bool End(Process* process) {
    if (process->ending || !ProcessOf(*process)->Handles(SIGTERM)) return false;
    Trace((process->server < 0 ? "drain " : "end ") + process->name);
    process->ending = true;
    ProcessOf(*process)->Signal(SIGTERM);
    return true;
  }

  // As a lifecycle rule does it, or a restored backup. False while no task is finished.
  bool LoseResult() {
    const std::optional<Task> task = history_.FinishedTask();
    if (!task.has_value()) return false;
    history_.NoteLoss(task->name);
    std::error_code error;
    auto it = std::filesystem::recursive_directory_iterator(cluster_->File("."), error);
    for (; !error && it != std::filesystem::recursive_directory_iterator(); it.increment(error)) {
      if (it->path().filename() != task->result_sha256) continue;
      Trace("lose the result of " + task->name);
      std::filesystem::remove(it->path(), error);
      return true;
    }
    return true;  // gone already: the job has ended
  }

  // False while its victim is dead, stopped, or still being loaded.
  bool Perform(const PlannedAction& action, absl::Time now) {
    if (action.kind == PlannedAction::Kind::kKillDatabase) return Begin("PostgreSQL", action);
    if (action.kind == PlannedAction::Kind::kKillStore) return Begin("S3", action);
    const auto victim =
        std::find_if(processes_.begin(), processes_.end(),
                     [&](const Process& process) { return process.server == action.server; });
    if (victim->restart_at != absl::InfiniteFuture() || victim->ending ||
        victim->resume_at != absl::InfiniteFuture()) {
      return false;
    }
    if (action.kind == PlannedAction::Kind::kEndServer) return End(&*victim);
    if (action.kind == PlannedAction::Kind::kKillServer) {
      Kill(&*victim);
    } else {
      Stop(&*victim, now + action.duration);
    }
    return true;
  }

  bool Begin(const std::string& what, const PlannedAction& action) {
    Outage& outage = action.kind == PlannedAction::Kind::kKillStore ? *store_ : *database_;
    if (outage.down()) return false;
    Trace(absl::StrCat("kill -9 ", what, ", for ", absl::FormatDuration(action.duration)));
    outage.Begin(action.duration);
    return true;
  }
  static absl::Duration DownFor(const std::unique_ptr<Outage>& outage) {
    return outage == nullptr ? absl::ZeroDuration() : outage->down_for();
  }

  void UserActs() {
    if (cancels_) {
      Trace("cancel");
      // The server may be down, for the supervisor to start again: a thread of its own.
      user_ = std::thread([this] { (void)client_->CancelJob(job_); });
      return;
    }
    Trace("pause and resume");
    user_ = std::thread([this] {
      (void)client_->PauseJob(job_);
      absl::SleepFor(absl::Milliseconds(200));
      absl::Status status;
      do {
        status = client_->ResumeJob(job_).status();
      } while (!watcher_done_.load() &&
               (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)));
    });
  }

  void Watch() {
    while (!watcher_done_.load() && !history_.final_state().has_value()) {
      auto watch = std::make_shared<JobWatcher>(client_->WatchJob(job_));
      {
        absl::MutexLock lock(&watch_mutex_);
        watch_ = watch;
      }
      while (!watcher_done_.load()) {
        const auto update = watch->Next();
        if (!update.ok() || !update->has_value()) break;
        history_.Add(**update);
      }
      absl::SleepFor(kTick);
    }
  }

  // Also when the job has not ended, and the stream would not either.
  void StopWatching() {
    watcher_done_.store(true);
    absl::MutexLock lock(&watch_mutex_);
    if (watch_ != nullptr) watch_->Cancel();
  }

  // ---- The invariants
  void Check() {
    if (history_.final_state().has_value()) {
      Trace(absl::StrCat("the job has ended: ", JobStateName(*history_.final_state())));
    }
    EndOutages();
    if (!history_.final_state().has_value()) {
      if (user_.joinable()) user_.join();
      return;
    }
    if (on_postgres_) CheckOneIsActive();
    // What is final is durable: asked of a server that has just read its state, and from a database
    // that has just recovered.
    for (int i = 0; i < NumServers(); ++i) cluster_->KillServer(i);
    if (on_postgres_) {
      Trace("kill -9 PostgreSQL, and all servers");
      database_->Begin(absl::ZeroDuration());
      EndOutages();
    }
    if (!cluster_->StartServer({.environment = environment_})) {
      Violation("the server does not start on its state");
      return;
    }
    if (user_.joinable()) user_.join();  // who may have been waiting for a server
    for (Process& process : processes_) {
      if (process.resume_at != absl::InfiniteFuture()) ProcessOf(process)->Signal(SIGCONT);
    }
    const auto update = CurrentState();
    if (!update.has_value()) return;
    const Job& job = update->job;
    history_.Add(*update);
    if (job.state != history_.final_state()) {
      Violation(absl::StrCat("the job was ", JobStateName(*history_.final_state()),
                             " and is, after a restart, ", JobStateName(job.state)));
    }
    for (const Task& task : update->tasks) num_attempts_ += task.attempt;
    // A loss may show at several consumers, and a task be made again once for each.
    const std::set<std::string> losses = history_.losses();
    Violations(CheckTasks(*update, num_drains_ + kMaxRemakes * static_cast<int>(losses.size())));
    Violations(history_.violations());
    std::string log;
    for (int i = 0; i < NumServers(); ++i) log += cluster_->server(i)->Log();
    Violations(CheckServerLog(log, losses));
    CheckPublication(job);
    const auto listed = cluster_->client().ListJobs({});
    if (!listed.ok() || listed->jobs.size() != 1) Violation("submitting once made no one job");
  }

  void EndOutages() {
    if (database_ != nullptr && !database_->Wait()) Violation("PostgreSQL does not start again");
    if (store_ != nullptr && !store_->Wait()) Violation("the S3 server does not start again");
  }

  // Once nobody is disturbed any more, one server is active and the other knows that it is not:
  // also one that stood still while it was replaced.
  void CheckOneIsActive() {
    for (Process& process : processes_) {
      if (process.server < 0) continue;
      ProcessOf(process)->Signal(SIGCONT);
      process.resume_at = absl::InfiniteFuture();
      if (process.ending) ProcessOf(process)->WaitForExit(kServersSettle);
      if (!ProcessOf(process)->running() &&
          !cluster_->StartServer(process.server, ServerOptions(/*may_arm=*/false))) {
        Violation(process.name + " does not start");
      }
    }
    if (!WaitUntil([this] { return NumActive() == 1; }, kServersSettle)) {
      Violation(absl::StrCat(NumActive(), " servers are active"));
    }
  }

  void CheckPublication(const Job& job) {
    const std::string manifest = "/out/manifest.json";
    const int published = on_s3_ ? store_proxy_->NumPuts(manifest) : publications_->Count();
    // A store that was killed may have published and not said so.
    const bool unknown = on_s3_ && store_proxy_->NumUnknownPuts(manifest) > 0;
    if (published > 1) Violation(absl::StrCat("the artifact was published ", published, " times"));
    if (cancels_ && job.state == JobState::kCancelled) {
      // The cancellation came late; still nothing half done.
      if (published > 0 || (unknown && HasManifest())) CheckArtifact();
    } else if (job.state != JobState::kSucceeded) {
      Violation(absl::StrCat("the job ended ", JobStateName(job.state), ": ",
                             job.error.has_value() ? job.error->message : "no error"));
    } else {
      if (published != 1 && !unknown) Violation(absl::StrCat("published ", published, " times"));
      CheckArtifact();
    }
  }

  bool HasManifest() {
    const auto store = OpenObjectStore(output_);
    return store.ok() && (*store)->Stat("manifest.json").ok();
  }

  std::optional<JobUpdate> CurrentState() {
    const auto job = cluster_->client().GetJob(job_);
    const auto tasks = cluster_->client().ListTasks(job_);
    if (!job.ok() || !tasks.ok()) {
      Violation(absl::StrCat("cannot read the final state: ", job.status().ToString(), ", ",
                             tasks.status().ToString()));
      return std::nullopt;
    }
    return JobUpdate{*job, *tasks};
  }

  void CheckArtifact() {
    std::string dir = cluster_->File("out");
    if (on_s3_) {
      dir = cluster_->File("downloaded");
      const auto downloaded = DownloadArtifact({output_, "", 0}, dir);
      if (!downloaded.ok()) {
        Violation(absl::StrCat("download: ", downloaded.status().ToString()));
        return;
      }
    }
    const CommandResult verified = cluster_->Run("uniquanf-batch", {"verify", dir});
    if (verified.status != ExitStatus{0, 0}) Violation("verify: " + verified.output);
    Violations(CheckBytes(ArtifactBytes(dir), world_->Reference(variant_)));
  }

  void Finish() {
    if (user_.joinable()) user_.join();
    result_.summary = absl::StrFormat(
        "%s in %.1f s, %d attempts, %d connections broken, %d of %d store requests failed%s%s",
        history_.final_state().has_value() ? JobStateName(*history_.final_state()) : "no end",
        absl::ToDoubleSeconds(absl::Now() - start_), num_attempts_,
        NumBroken(worker_proxies_) + NumBroken(client_proxies_),
        store_proxy_ != nullptr ? store_proxy_->counts().failed() : 0,
        store_proxy_ != nullptr ? store_proxy_->counts().requests : 0, Killed("S3", store_),
        Killed("PostgreSQL", database_));
    if (options_.failure_dir.empty()) return;
    if (result_.violations.empty() && !options_.keep_all_logs) return;
    const std::string dir = absl::StrCat(options_.failure_dir, "/seed-", seed_);
    std::filesystem::create_directories(dir);
    std::vector<std::string> logs = {"server.log"};
    for (int i = 1; i < NumServers(); ++i) logs.push_back(absl::StrCat("server-", i, ".log"));
    for (int i = 0; i < kNumWorkers; ++i) logs.push_back(absl::StrCat("worker-w", i, ".log"));
    for (const std::string& log : logs) {
      std::error_code error;
      std::filesystem::copy_file(cluster_->File(log), absl::StrCat(dir, "/", log),
                                 std::filesystem::copy_options::overwrite_existing, error);
    }
    if (on_postgres_) {
      std::error_code error;
      std::filesystem::copy_file(options_.postgres->LogFile(), absl::StrCat(dir, "/postgres.log"),
                                 std::filesystem::copy_options::overwrite_existing, error);
    }
    std::ofstream trace(absl::StrCat(dir, "/trace"));
    for (const std::string& line : result_.trace) trace << line << "\n";
  }

  static int NumBroken(const std::vector<std::unique_ptr<TcpProxy>>& proxies) {
    int num = 0;
    for (const auto& proxy : proxies) num += proxy->num_broken();
    return num;
  }
  static std::string Killed(const std::string& what, const std::unique_ptr<Outage>& outage) {
    if (outage == nullptr) return "";
    return absl::StrCat(", ", what, " killed ", outage->num_crashes(), " times");
  }

  const uint64_t seed_;
  const ChaosOptions& options_;
  const ChaosWorld* world_;
  std::mt19937_64 random_;
  const ChaosPlan plan_;
  const absl::Time start_;
  int variant_;
  bool lossy_workers_, lossy_client_, on_s3_, on_postgres_, cancels_, pauses_;
  int num_actions_, num_armed_server_, num_armed_worker_;
  int num_drains_ = 0, num_attempts_ = 0;

  ChaosResult result_;
  std::map<std::string, std::string> environment_;
  std::string output_;
  std::string job_;
  TaskHistory history_;
  std::atomic<bool> watcher_done_{false};
  absl::Mutex watch_mutex_;
  std::shared_ptr<JobWatcher> watch_ ABSL_GUARDED_BY(watch_mutex_);
  std::unique_ptr<Identities> identities_;  // null: nobody is asked who he is
  std::vector<std::string> worker_flags_;
  std::unique_ptr<MiniCluster> cluster_;
  std::unique_ptr<AppearanceCounter> publications_;
  std::unique_ptr<FailingHttpProxy> store_proxy_;
  std::unique_ptr<Outage> store_, database_;
  std::vector<std::unique_ptr<TcpProxy>> worker_proxies_, client_proxies_;
  std::unique_ptr<Client> client_;
  std::vector<Process> processes_;
  std::thread user_;
};

}  // namespace

ChaosResult RunChaos(uint64_t seed, const ChaosWorld& world, const ChaosOptions& options) {
  return ChaosRun(seed, world, options).Run();
}

}  // namespace uniquanf
