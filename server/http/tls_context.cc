#include "server/http/tls_context.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf::server {
namespace {

struct Freed {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

std::unique_ptr<BIO, Freed> Reader(const std::string& text) {
  return std::unique_ptr<BIO, Freed>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::vector<std::unique_ptr<X509, Freed>> ReadCertificates(const std::string& pem) {
  std::vector<std::unique_ptr<X509, Freed>> found;
  const auto reader = Reader(pem);
  while (X509* const one = PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr)) {
    found.emplace_back(one);
  }
  ERR_clear_error();
  return found;
}

// HTTP/1.1, where a client offers several protocols.
int SelectProtocol(SSL*, const unsigned char** out, unsigned char* out_size,
                   const unsigned char* offered, unsigned int offered_size, void*) {
  static constexpr unsigned char kHttp11[] = "\x08http/1.1";
  unsigned char* selected = nullptr;
  if (SSL_select_next_proto(&selected, out_size, kHttp11, sizeof(kHttp11) - 1, offered,
                            offered_size) != OPENSSL_NPN_NEGOTIATED) {
    return SSL_TLSEXT_ERR_NOACK;
  }
  *out = selected;
  return SSL_TLSEXT_ERR_OK;
}

}  // namespace

absl::StatusOr<std::shared_ptr<SSL_CTX>> TlsContext::Make(const TlsContents& contents) const {
  const auto refused = [](const char* what) {
    return InvalidInput("INVALID_TLS_OPTIONS",
                        absl::StrCat("OpenSSL does not take the ", what, " for the HTTP address"));
  };
  std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
  if (context == nullptr) return refused("library's own settings");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION);
  SSL_CTX_set_options(context.get(), SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION |
                                         SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(context.get(),
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_select_cb(context.get(), SelectProtocol, nullptr);
  const auto own = ReadCertificates(contents.certificate);
  for (size_t i = 0; i < own.size(); ++i) {
    const bool taken = i == 0 ? SSL_CTX_use_certificate(context.get(), own[i].get()) == 1
                              : SSL_CTX_add1_chain_cert(context.get(), own[i].get()) == 1;
    if (!taken) return refused("certificate");
  }
  const std::unique_ptr<EVP_PKEY, Freed> key(
      PEM_read_bio_PrivateKey(Reader(contents.key).get(), nullptr, nullptr, nullptr));
  if (own.empty() || key == nullptr || SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1 ||
      SSL_CTX_check_private_key(context.get()) != 1) {
    return refused("certificate and key");
  }
  if (contents.ca.empty()) return context;
  for (const auto& authority : ReadCertificates(contents.ca)) {
    if (X509_STORE_add_cert(SSL_CTX_get_cert_store(context.get()), authority.get()) != 1 ||
        SSL_CTX_add_client_CA(context.get(), authority.get()) != 1) {
      return refused("client authorities");
    }
  }
  SSL_CTX_set_verify(context.get(),
                     SSL_VERIFY_PEER | (optional_ ? 0 : SSL_VERIFY_FAIL_IF_NO_PEER_CERT), nullptr);
  return context;
}

absl::StatusOr<std::shared_ptr<SSL_CTX>> TlsContext::Get() {
  const std::shared_ptr<const TlsContents> now = files_->contents();
  absl::MutexLock lock(&mutex_);
  if (contents_ != now) {
    absl::StatusOr<std::shared_ptr<SSL_CTX>> made = Make(*now);
    if (!made.ok() && context_ == nullptr) return made.status();
    if (made.ok()) context_ = *std::move(made);
    contents_ = now;
  }
  return context_;
}

}  // namespace uniquanf::server
