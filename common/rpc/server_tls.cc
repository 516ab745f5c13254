#include "common/rpc/server_tls.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include <list>

#include "absl/synchronization/mutex.h"
#include "common/base/check.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

// What one port of a server was given last.
struct PortState {
  const TlsWatch* files;
  absl::Mutex mutex;
  std::shared_ptr<const TlsContents> given ABSL_GUARDED_BY(mutex);
};

// gRPC asks before each handshake. Should it not be able to use what it gets, it keeps what it had.
grpc_ssl_certificate_config_reload_status FetchCertificates(
    void* user_data, grpc_ssl_server_certificate_config** config) {
  PortState* const port = static_cast<PortState*>(user_data);
  const std::shared_ptr<const TlsContents> contents = port->files->contents();
  absl::MutexLock lock(&port->mutex);
  if (port->given == contents) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const grpc_ssl_pem_key_cert_pair pair = {contents->key.c_str(), contents->certificate.c_str()};
  *config = grpc_ssl_server_certificate_config_create(
      contents->ca.empty() ? nullptr : contents->ca.c_str(), &pair, 1);
  port->given = contents;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

// gRPC's C++ classes have certificates that stay, or a file watcher that takes a pair that does not
// fit together and then refuses every handshake; its C interface has what is needed.
class RenewedCredentials final : public grpc::ServerCredentials {
 public:
  RenewedCredentials(const TlsWatch* files, grpc_ssl_client_certificate_request_type request)
      : files_(files), request_(request) {}

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {
    UQ_CHECK(false);  // nobody has one
  }

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    PortState& port = ports_.emplace_back();
    port.files = files_;
    grpc_server_credentials* const credentials = grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(request_, FetchCertificates,
                                                                        &port));
    const int bound = grpc_server_add_http2_port(server, address.c_str(), credentials);
    grpc_server_credentials_release(credentials);
    return bound;
  }

  const TlsWatch* const files_;
  const grpc_ssl_client_certificate_request_type request_;
  std::list<PortState> ports_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ServerTls>> ServerTls::Open(const ServerTlsOptions& options,
                                                           const TlsWatchOptions& watch) {
  std::unique_ptr<ServerTls> tls(new ServerTls());
  if (!options.enabled() && options.key_file.empty()) {
    if (!options.client_ca_file.empty()) {
      return InvalidInput("INVALID_TLS_OPTIONS",
                          "a client CA needs TLS: give the server's certificate and key");
    }
    tls->credentials_ = grpc::InsecureServerCredentials();
    return tls;
  }
  UQ_ASSIGN_OR_RETURN(
      tls->files_,
      TlsWatch::Start({options.client_ca_file, options.certificate_file, options.key_file}, watch));
  const grpc_ssl_client_certificate_request_type request =
      options.client_ca_file.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
      : options.client_certificate_optional
          ? GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY
          : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  tls->credentials_ = std::make_shared<RenewedCredentials>(tls->files_.get(), request);
  return tls;
}

}  // namespace uniquanf
