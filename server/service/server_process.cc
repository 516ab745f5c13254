#include "server/service/server_process.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>

#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/base/status.h"
#include "common/rpc/channel.h"
#include "server/http/http_service.h"

namespace uniquanf::server {
namespace {

constexpr absl::Duration kLookForOpenCalls = absl::Milliseconds(50);

}  // namespace

ServerProcess::ServerProcess(ServerProcessOptions options, std::unique_ptr<JobStore> store,
                             const Clock* clock, IdGenerator* ids,
                             RuntimeObserver* runtime_observer, RpcObserver* rpc_observer)
    : options_(std::move(options)), store_(std::move(store)), clock_(clock) {
  options_.runtime.on_active = [this, on_active =
                                          options_.runtime.on_active](const absl::Status& status) {
    {
      absl::MutexLock lock(&health_mutex_);
      active_ = status.ok();
    }
    SetHealth();
    if (on_active != nullptr) on_active(status);
  };
  options_.runtime.check_job = CheckStoredJob;
  runtime_ = std::make_unique<Runtime>(options_.runtime, store_.get(), clock, runtime_observer);
  context_.runtime = runtime_.get();
  context_.ids = ids;
  context_.clock = clock;
  context_.door.clock = clock;
  context_.door.observer = rpc_observer;
  context_.door.access = options_.access;
  context_.door.relayed = &relayed_callers_;
  context_.door.audit = options_.audit;
  context_.door.audit_required = options_.audit_required;
  context_.credentials_dir = options_.credentials_dir;
  context_.layout.root = options_.object_root;
  while (!context_.layout.root.empty() && context_.layout.root.back() == '/') {
    context_.layout.root.pop_back();
  }
  context_.reserved_uris = {context_.layout.root};
  if (!options_.data_dir.empty()) {
    context_.reserved_uris.push_back(absl::StrCat("file://", options_.data_dir));
  }
  context_.state_backend = store_->backend();
  if (!options_.http_listen.empty()) context_.max_http_streams = options_.http_max_streams;
  if (options_.check_results) {
    stored_results_ = std::make_unique<StoredResults>(context_.layout.root, options_.store);
    context_.stored_results = stored_results_.get();
  }
  if (options_.check_submissions) {
    // Working objects of a local store lie where workers read them.
    const bool shares_files = context_.layout.root.find("://") == std::string::npos ||
                              context_.layout.root.rfind("file://", 0) == 0;
    preflight_ = std::make_unique<Preflight>(options_.store, shares_files);
    context_.preflight = preflight_.get();
  }
  if (options_.access != nullptr) {
    outcome_proof_ = std::make_unique<OutcomeProof>(context_.layout.root, options_.store);
    context_.outcome_proof = outcome_proof_.get();
  }
  job_service_ = std::make_unique<JobServiceImpl>(&context_);
  worker_service_ = std::make_unique<WorkerServiceImpl>(&context_);
  admin_service_ = std::make_unique<AdminServiceImpl>(&context_);
}

ServerProcess::~ServerProcess() { Shutdown(); }

absl::Status ServerProcess::Open(Port* port, const std::string& listen, const std::string& flag,
                                 const std::vector<grpc::Service*>& services) {
  grpc::ServerBuilder builder;
  ConfigureServerTransport({}, &builder);
  std::unique_ptr<GuardedListener> listener;
  if (!listen.empty()) {
    absl::StatusOr<std::unique_ptr<GuardedListener>> bound =
        GuardedListener::Bind(listen, options_.connections);
    if (absl::IsInvalidArgument(bound.status())) return bound.status();
    if (!bound.ok()) {
      return Unavailable("LISTEN_FAILED",
                         absl::StrCat(bound.status().message(),
                                      "; is another server running there? Choose another ", flag));
    }
    listener = *std::move(bound);
    listener->AddTo(&builder, port->tls->credentials());
  }
  for (grpc::Service* service : services) builder.RegisterService(service);
  port->server = builder.BuildAndStart();
  if (port->server == nullptr) {
    return Unavailable("LISTEN_FAILED", "gRPC cannot serve; its log says why");
  }
  if (listener != nullptr) listener->Start();
  port->listener = std::move(listener);
  return absl::OkStatus();
}

// Its calls go through the main port's gRPC server, without its socket.
absl::Status ServerProcess::OpenHttp() {
  if (options_.http_listen.empty()) return absl::OkStatus();
  HttpServiceOptions http;
  http.listener.listen = options_.http_listen;
  http.listener.tls_files = main_.tls->files();
  http.listener.client_certificate_optional = options_.tls.client_certificate_optional;
  http.max_streams = options_.http_max_streams;
  UQ_ASSIGN_OR_RETURN(const bool loopback, IsLoopbackOnly(options_.http_listen));
  http.local_names_only = options_.access == nullptr && loopback;
  absl::StatusOr<std::unique_ptr<HttpService>> started = HttpService::Start(
      http, main_.server->InProcessChannel({}), &relayed_callers_, HttpDescriptors());
  if (absl::IsUnavailable(started.status())) {
    return Unavailable("LISTEN_FAILED",
                       absl::StrCat(started.status().message(), "; choose another --http-listen"));
  }
  if (!started.ok()) return Annotate(started.status(), "--http-listen");
  absl::MutexLock lock(&health_mutex_);
  http_ = *std::move(started);
  return absl::OkStatus();
}

int ServerProcess::http_port() const {
  absl::MutexLock lock(&health_mutex_);
  return http_ == nullptr ? 0 : http_->port();
}

HttpCounts ServerProcess::http_connections() const {
  absl::MutexLock lock(&health_mutex_);
  return http_ == nullptr ? HttpCounts{} : http_->counts();
}

int ServerProcess::num_http_streams() const {
  absl::MutexLock lock(&health_mutex_);
  return http_ == nullptr ? 0 : http_->num_streams();
}

absl::Status ServerProcess::Start() {
  const bool for_workers = !options_.worker_listen.empty();
  UQ_ASSIGN_OR_RETURN(main_.tls, ServerTls::Open(options_.tls, options_.tls_watch));
  if (for_workers) {
    UQ_ASSIGN_OR_RETURN(workers_.tls, ServerTls::Open(options_.worker_tls, options_.tls_watch));
  }
  UQ_RETURN_IF_ERROR(runtime_->Start());
  context_.start_time = clock_->Now();
  grpc::EnableDefaultHealthCheckService(true);
  if (options_.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  if (options_.access != nullptr) {
    options_.access->set_on_recheck([this] { runtime_->watch_hub().AllChanged(); });
  }
  std::vector<grpc::Service*> services = {job_service_.get(), admin_service_.get()};
  absl::Status opened;
  if (for_workers) {
    opened = Open(&workers_, options_.worker_listen, "--worker-listen", {worker_service_.get()});
  } else {
    services.push_back(worker_service_.get());
  }
  if (opened.ok()) opened = Open(&main_, options_.listen, "--listen", services);
  if (opened.ok()) opened = OpenHttp();
  if (!opened.ok()) {
    Shutdown();
    return opened;
  }
  {
    absl::MutexLock lock(&health_mutex_);
    listening_ = true;
    for (Port* port : {&main_, &workers_}) {
      if (port->listener == nullptr) continue;
      port->watch = std::make_unique<ListenerWatch>(options_.listener_watch, port->listener.get());
    }
  }
  SetHealth();
  return absl::OkStatus();
}

absl::Status ServerProcess::listener_health() const {
  absl::MutexLock lock(&health_mutex_);
  for (const Port* port : {&main_, &workers_}) {
    if (port->watch != nullptr) UQ_RETURN_IF_ERROR(port->watch->health());
  }
  return absl::OkStatus();
}

ConnectionCounts ServerProcess::connections() const {
  absl::MutexLock lock(&health_mutex_);
  ConnectionCounts sum;
  for (const Port* port : {&main_, &workers_}) {
    if (port->watch == nullptr) continue;
    const ConnectionCounts counts = port->listener->counts();
    sum.num_open += counts.num_open;
    sum.num_accepted += counts.num_accepted;
    sum.num_refused_total += counts.num_refused_total;
    sum.num_refused_peer += counts.num_refused_peer;
    sum.num_failed_accepts += counts.num_failed_accepts;
  }
  return sum;
}

void ServerProcess::ReloadTls() {
  for (const Port* port : {&main_, &workers_}) {
    if (port->tls != nullptr && port->tls->files() != nullptr) port->tls->files()->ReloadNow();
  }
}

absl::Time ServerProcess::tls_not_after() const {
  absl::MutexLock lock(&health_mutex_);
  const bool has_certificate = main_.watch != nullptr && main_.tls->files() != nullptr;
  return has_certificate ? main_.tls->files()->contents()->not_after : absl::InfiniteFuture();
}

void ServerProcess::SetHealth() {
  absl::MutexLock lock(&health_mutex_);
  if (!listening_) return;
  for (const Port* port : {&main_, &workers_}) {
    if (port->server != nullptr) port->server->GetHealthCheckService()->SetServingStatus(active_);
  }
}

std::shared_ptr<grpc::Channel> ServerProcess::InProcessChannel() {
  return main_.server->InProcessChannel({});
}

// gRPC waits until every client has taken notice, and one that makes no calls looks after its
// connection every few seconds only. A standby must not wait for that: connections without calls
// are cut.
void ServerProcess::EndCalls(grpc::Server* server) {
  absl::Notification ended;
  std::thread graceful([this, server, &ended] {
    server->Shutdown(std::chrono::system_clock::now() +
                     absl::ToChronoMilliseconds(options_.shutdown_timeout));
    ended.Notify();
  });
  while (!ended.WaitForNotificationWithTimeout(kLookForOpenCalls)) {
    const bool none_is_open = context_.door.open_calls.use_count() == 1;
    if (none_is_open) grpc_server_cancel_all_calls(server->c_server());
  }
  graceful.join();
}

void ServerProcess::Shutdown() {
  if (shut_down_) return;
  shut_down_ = true;
  if (options_.access != nullptr) options_.access->set_on_recheck(nullptr);
  std::vector<std::unique_ptr<ListenerWatch>> watches;
  {
    absl::MutexLock lock(&health_mutex_);
    active_ = listening_ = false;
    for (Port* port : {&main_, &workers_}) watches.push_back(std::move(port->watch));
  }
  watches.clear();
  if (http_ != nullptr) http_->StopAccepting();
  std::vector<grpc::Server*> servers;
  for (const Port* port : {&main_, &workers_}) {
    if (port->listener != nullptr) port->listener->Stop();
    if (port->server == nullptr) continue;
    port->server->GetHealthCheckService()->SetServingStatus(false);
    servers.push_back(port->server.get());
  }
  if (servers.empty()) return runtime_->Stop();
  runtime_->StopLeasing();
  runtime_->watch_hub().Shutdown();
  std::vector<std::thread> ending;
  for (grpc::Server* server : servers) ending.emplace_back([this, server] { EndCalls(server); });
  for (std::thread& thread : ending) thread.join();
  std::unique_ptr<HttpService> http;
  {
    absl::MutexLock lock(&health_mutex_);
    http = std::move(http_);
  }
  http.reset();
  runtime_->Stop();
}

}  // namespace uniquanf::server
