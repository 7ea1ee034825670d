//! The `export` attribute of billhook-plugin-api; use it from there.

use proc_macro::TokenStream;
use quote::{format_ident, quote};
use syn::{Error, ImplItem, ItemImpl, parse_macro_input, spanned::Spanned};

/// See `billhook_plugin_api::export`.
#[proc_macro_attribute]
pub fn export(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if !arguments.is_empty() {
        return Error::new(proc_macro2::Span::call_site(), "`export` takes no arguments").into_compile_error().into();
    }
    let item = parse_macro_input!(item as ItemImpl);
    match exported(&item) {
        Ok(entry) => quote!(#item #entry).into(),
        Err(error) => {
            let error = error.into_compile_error();
            quote!(#item #error).into()
        }
    }
}

/// The entry and the record for an `impl` of a trait.
fn exported(item: &ItemImpl) -> Result<proc_macro2::TokenStream, Error> {
    let Some((path, _)) = &item.trait_ else {
        return Err(Error::new(item.impl_token.span(), "`export` goes on `impl Plugin for YourType`"));
    };
    if path.segments.last().is_none_or(|segment| segment.ident != "Plugin") {
        return Err(Error::new(path.span(), "`export` knows the trait `Plugin`, and no other"));
    }
    if !item.generics.params.is_empty() {
        return Err(Error::new(item.generics.span(), "a library exports one type: the `impl` can't be generic"));
    }
    let plugin = &item.self_ty;
    let hooks = hooks(item)?;
    let names = hooks.iter().map(|hook| format!("\"{hook}\"")).collect::<Vec<_>>().join(",");
    let names = format!(r#"","hooks":[{names}]}}"#);
    Ok(quote! {
        const _: () = {
            use ::billhook_plugin_api::abi::{glue, record, types};

            const PARTS: &[&str] = &[
                r#"{"trait":"plugin","api":""#,
                record::API_VERSION,
                r#"","compiler":""#,
                record::COMPILER,
                r#"","panic":""#,
                if cfg!(panic = "abort") { "abort" } else { "unwind" },
                r#"","target":""#,
                record::TARGET,
                #names,
            ];

            #[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__bh_plugin"))]
            #[cfg_attr(windows, unsafe(link_section = ".bhplug"))]
            #[cfg_attr(not(any(target_vendor = "apple", windows)), unsafe(link_section = ".billhook.plugin"))]
            #[used]
            static RECORD: [u8; record::length(PARTS)] = record::join(PARTS);

            impl glue::ExportPlugin for #plugin {
                const MODULE: types::PluginModule = types::PluginModule {
                    #(#hooks: Some(glue::#hooks::<Self>()),)*
                    ..glue::bare_module::<Self>()
                };
                const RECORD: &'static [u8] = &RECORD;
            }

            #[unsafe(no_mangle)]
            pub static billhook_plugin_1: glue::PluginEntry = glue::PluginEntry::new::<#plugin>();
        };
    })
}

/// The hooks that the `impl` has.
fn hooks(item: &ItemImpl) -> Result<Vec<proc_macro2::Ident>, Error> {
    let mut hooks = Vec::new();
    for function in &item.items {
        if let ImplItem::Macro(invocation) = function {
            let message = "a hook that a macro makes can't be seen here, and would never be called: write it out";
            return Err(Error::new(invocation.span(), message));
        }
        let ImplItem::Fn(function) = function else { continue };
        let conditional =
            |attribute: &&syn::Attribute| attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr");
        if let Some(attribute) = function.attrs.iter().find(conditional) {
            let message = "a hook can't be conditional: the library's record tells which hooks there are";
            return Err(Error::new(attribute.span(), message));
        }
        if function.sig.ident != "new" {
            hooks.push(format_ident!("{}", function.sig.ident));
        }
    }
    Ok(hooks)
}
