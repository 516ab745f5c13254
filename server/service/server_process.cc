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
  context_.observer = rpc_observer;
  context_.layout.root = options_.object_root;
  while (!context_.layout.root.empty() && context_.layout.root.back() == '/') {
    context_.layout.root.pop_back();
  }
  context_.state_backend = store_->backend();
  if (options_.check_results) {
    stored_results_ = std::make_unique<StoredResults>(context_.layout.root, options_.store);
    context_.stored_results = stored_results_.get();
  }
  job_service_ = std::make_unique<JobServiceImpl>(&context_);
  worker_service_ = std::make_unique<WorkerServiceImpl>(&context_);
  admin_service_ = std::make_unique<AdminServiceImpl>(&context_);
}

ServerProcess::~ServerProcess() { Shutdown(); }

absl::Status ServerProcess::Start() {
  UQ_ASSIGN_OR_RETURN(tls_, ServerTls::Open(options_.tls, options_.tls_watch));
  UQ_RETURN_IF_ERROR(runtime_->Start());
  context_.start_time = clock_->Now();
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  ConfigureServerTransport({}, &builder);
  std::unique_ptr<GuardedListener> listener;
  if (!options_.listen.empty()) {
    absl::StatusOr<std::unique_ptr<GuardedListener>> bound =
        GuardedListener::Bind(options_.listen, options_.connections);
    if (!bound.ok()) {
      runtime_->Stop();
      if (absl::IsInvalidArgument(bound.status())) return bound.status();
      return Unavailable(
          "LISTEN_FAILED",
          absl::StrCat(bound.status().message(),
                       "; is another server running there? Choose another --listen"));
    }
    listener = *std::move(bound);
    listener->AddTo(&builder, tls_->credentials());
  }
  builder.RegisterService(job_service_.get());
  builder.RegisterService(worker_service_.get());
  builder.RegisterService(admin_service_.get());
  server_ = builder.BuildAndStart();
  if (server_ == nullptr) {
    runtime_->Stop();
    return Unavailable("LISTEN_FAILED", "gRPC cannot serve; its log says why");
  }
  if (listener != nullptr) listener->Start();
  listener_ = std::move(listener);
  {
    absl::MutexLock lock(&health_mutex_);
    listening_ = true;
    if (listener_ != nullptr) {
      watch_ = std::make_unique<ListenerWatch>(options_.listener_watch, listener_.get());
    }
  }
  SetHealth();
  return absl::OkStatus();
}

absl::Status ServerProcess::listener_health() const {
  absl::MutexLock lock(&health_mutex_);
  return watch_ == nullptr ? absl::OkStatus() : watch_->health();
}

ConnectionCounts ServerProcess::connections() const {
  absl::MutexLock lock(&health_mutex_);
  return watch_ == nullptr ? ConnectionCounts() : listener_->counts();
}

void ServerProcess::ReloadTls() {
  if (tls_->files() != nullptr) tls_->files()->ReloadNow();
}

absl::Time ServerProcess::tls_not_after() const {
  absl::MutexLock lock(&health_mutex_);
  const bool has_certificate = watch_ != nullptr && tls_->files() != nullptr;
  return has_certificate ? tls_->files()->contents()->not_after : absl::InfiniteFuture();
}

void ServerProcess::SetHealth() {
  absl::MutexLock lock(&health_mutex_);
  if (listening_) server_->GetHealthCheckService()->SetServingStatus(active_);
}

std::shared_ptr<grpc::Channel> ServerProcess::InProcessChannel() {
  return server_->InProcessChannel({});
}

// gRPC waits until every client has taken notice, and one that makes no calls looks after its
// connection every few seconds only. A standby must not wait for that: connections without calls
// are cut.
void ServerProcess::EndCalls() {
  absl::Notification ended;
  std::thread graceful([this, &ended] {
    server_->Shutdown(std::chrono::system_clock::now() +
                      absl::ToChronoMilliseconds(options_.shutdown_timeout));
    ended.Notify();
  });
  while (!ended.WaitForNotificationWithTimeout(kLookForOpenCalls)) {
    const bool none_is_open = context_.open_calls.use_count() == 1;
    if (none_is_open) grpc_server_cancel_all_calls(server_->c_server());
  }
  graceful.join();
}

void ServerProcess::Shutdown() {
  if (shut_down_) return;
  shut_down_ = true;
  if (server_ == nullptr) return;
  std::unique_ptr<ListenerWatch> watch;
  {
    absl::MutexLock lock(&health_mutex_);
    active_ = listening_ = false;
    watch = std::move(watch_);
  }
  watch.reset();
  if (listener_ != nullptr) listener_->Stop();
  server_->GetHealthCheckService()->SetServingStatus(false);
  runtime_->StopLeasing();
  runtime_->watch_hub().Shutdown();
  EndCalls();
  runtime_->Stop();
}

}  // namespace uniquanf::server
