// OpenSSL's side of the certificates that gRPC's ports have: the same files, renewed in the same
// way.
//
// Thread safety: thread-safe. Lifetime: borrows the files.
#ifndef UNIQUANF_SERVER_HTTP_TLS_CONTEXT_H_
#define UNIQUANF_SERVER_HTTP_TLS_CONTEXT_H_

#include <openssl/ssl.h>

#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "common/rpc/tls_files.h"

namespace uniquanf::server {

class TlsContext {
 public:
  // `client_certificate_optional`: as in ServerTlsOptions.
  TlsContext(TlsWatch* files, bool client_certificate_optional)
      : files_(files), optional_(client_certificate_optional) {}

  // For the next handshake: TLS 1.2 or 1.3, HTTP/1.1, with what the files hold now. Errors:
  // kInvalidArgument (INVALID_TLS_OPTIONS): OpenSSL does not take them, and took none before.
  absl::StatusOr<std::shared_ptr<SSL_CTX>> Get();

 private:
  absl::StatusOr<std::shared_ptr<SSL_CTX>> Make(const TlsContents& contents) const;

  TlsWatch* const files_;
  const bool optional_;
  absl::Mutex mutex_;
  std::shared_ptr<const TlsContents> contents_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<SSL_CTX> context_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace uniquanf::server

#endif  // UNIQUANF_SERVER_HTTP_TLS_CONTEXT_H_
